"""Every change of a model's structure goes through here and is logged, so that a resumed run can replay it."""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from everlearn.errors import ConfigError, ModelError, describe, nearest
from everlearn.models.heads import GrowingHead
from everlearn.registry import find, names
from everlearn.seeds import seed_for
from everlearn.shards import full, laid_out, shard

# built in; strategies register theirs as "operation"
OPERATIONS = ("lora", "full", "labels", "scale", "thresholds", "freeze")
TIED = "Model (with|has) `tie_word_embeddings=True`"  # peft's warnings, of 24 lines; an export unties what it merges


@dataclass(frozen=True)
class Scale:
    """How a task's numbers are put for the network: less their mean, in standard deviations."""

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Scale":
        """Return that of some numbers; of fewer than two, or of equal ones, the standard deviation counts as 1."""
        values = np.asarray(numbers, dtype=float)
        spread = float(values.std()) if len(values) > 1 else 0.0
        return cls(float(values.mean()) if len(values) else 0.0, spread if spread > 0 else 1.0)

    def standardised(self, number: float) -> float:
        """Return a number of the user's as the network learns it."""
        return (number - self.mean) / self.std

    def restored(self, output: float) -> float:
        """Return what the network put out in the user's unit."""
        return self.mean + self.std * output


class Adapters:
    """The structure of one model: what is trainable, which adapters and heads there are, and how it came to be.

    Parameters that are frozen when it is made stay so, and submodules in evaluation mode within a network in training
    mode (a frozen BatchNorm) are never put into training.

    Attributes:
        network: the module that is called, wrapped by peft once a LoRA is added.
        log: [[operation, arguments], ...] in order; JSON, replayed on resume.
        task_labels: {task name: names of its outputs} of tasks that have labels, or a number as their answer.
        task_blocks: {task name: index of its block in the head}, where each task has its own.
        columns: {label name: output column} over all tasks, in order of arrival.
        scales: {task name: how its numbers are put for the network}.
        thresholds: {task name: from which chance on each of its labels is taken}, where they were chosen.
    """

    def __init__(self, network: nn.Module, head: GrowingHead | None = None, head_mode: str = "task", fresh=()):
        self.network = network
        self.head = head
        self.head_mode = head_mode
        self.fresh = tuple(fresh)  # parameters that the checkpoint didn't hold: always trainable
        self.log: list[list[Any]] = []
        self.task_labels: dict[str, tuple[str, ...]] = {}
        self.task_blocks: dict[str, int] = {}
        self.columns: dict[str, int] = {}
        self.scales: dict[str, Scale] = {}
        self.thresholds: dict[str, tuple[float, ...]] = {}
        self._trained: dict[int, nn.Parameter] = {}  # by id: all that ever required gradients
        self._frozen = {id(p): p for p in network.parameters() if not p.requires_grad}  # by the caller; for good
        resting = [module for module in network.modules() if not module.training]
        self._resting = resting if network.training else []
        network.requires_grad_(False)

    def do(self, operation: str, **arguments: Any) -> None:
        """Apply one of OPERATIONS, or a registered one, and log it. Arguments must be JSON values.

        A method that changes the structure in its own way registers `(adapters, *, ...) -> None`, which must depend on
        nothing but the network and its arguments: a resumed run calls it again.

            @register("operation", "add_column")
            def add_column(adapters: Adapters, *, task: str, seed: int) -> None: ...
        """
        method = self._operation(operation)
        inspect.signature(method).bind(**arguments)
        with quiet_peft():
            method(**arguments)
        self.log.append([operation, arguments])
        self._note_trained()

    def replay(self, log: list[list[Any]]) -> None:
        """Apply the operations of `log` that are not applied yet.

        Raises:
            ModelError: if what was applied so far is no prefix of `log`.
        """
        if [entry[0] for entry in log[: len(self.log)]] != [entry[0] for entry in self.log]:
            way_out = "Resume with the recipe that the run was started with"
            raise ModelError(describe("adapters", "the saved structure differs from this model's", log, way_out))
        for operation, arguments in log[len(self.log) :]:
            self.do(operation, **arguments)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return {name: parameter} of all that requires gradients."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def train(self) -> None:
        """Put the network into training mode, all but the submodules that the caller laid still."""
        self.network.train()
        for module in self._resting:
            module.training = False

    def output_parameters(self) -> set[int]:
        """Return the ids of the parameters of the output layer: the heads, or a plain module's last linear map."""
        if self.head is not None:
            return {id(p) for p in self.head.parameters()}
        last = last_linear(self.network)
        if is_peft(self.network) or last is None:
            way_out = "Use a classifier, or a plain module trained in full; leave learner.backbone_scale at 1"
            raise ConfigError(describe("model", "has no output layer apart", self.mode, way_out))
        return {id(p) for p in last.parameters()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what learning can have changed: parameters that are or were trainable, and the buffers."""
        tensors = {name: p for name, p in self.network.named_parameters() if id(p) in self._trained}
        tensors.update({f"buffer:{name}": buffer for name, buffer in self.network.named_buffers()})
        return tensors

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Copy saved values of `tensors()` into the network, which must have the same structure.

        Raises:
            ModelError: if names or shapes differ.
        """
        present = self.tensors()
        differing = set(present) ^ set(tensors)
        differing |= {name for name in set(present) & set(tensors) if present[name].shape != tensors[name].shape}
        if differing:
            way_out = "Use the model and adapter that the state was saved with"
            raise ModelError(describe("model", "saved weights don't fit", sorted(differing)[:4], way_out))
        with torch.no_grad():
            for name, tensor in present.items():
                tensor.copy_(laid_out(tensors[name], tensor))

    def shard(self, device: torch.device) -> None:
        """Let each process keep a part of the weights, all of which are trained; see `everlearn.shards.shard`.

        Raises:
            ConfigError: if an adapter is trained, or the network isn't a language model that writes.
        """
        if self.mode != "full" or is_peft(self.network) or self.head is not None:
            way_out = "Write model.adapter: {name: full}; or fsdp: false, for an adapter's gradients are small"
            what = "needs a language model all of whose weights are trained"
            raise ConfigError(describe("fsdp", what, self.mode, way_out))
        kept = {name for name, p in self.network.named_parameters() if id(p) in self._frozen}
        shard(self.network, device)
        named = dict(self.network.named_parameters())
        self._frozen = {id(named[name]): named[name] for name in kept}
        self._trained = {id(p): p for p in named.values() if p.requires_grad}

    @property
    def mode(self) -> str:
        """How the network is trained: lora (with or without a soft prompt), prompt (or prefix) alone, or full."""
        done = {operation for operation, _ in self.log}
        if "lora" in done or (is_peft(self.network) and isinstance(self.network.active_peft_config, LoraConfig)):
            return "lora"
        return "prompt" if done & {"soft_prompt", "prefix"} else "full"

    @contextmanager
    def using(self, values: dict[str, torch.Tensor]) -> Iterator[None]:
        """Let the network compute with other weights, such as those of a teacher, until the block ends.

        `values` names them as `tensors()` does: `buffer:NAME` is a buffer. Only storage is exchanged, so that a graph
        recorded before the block can still be walked back after it. Of sharded weights all processes must ask.
        """
        present: dict[str, torch.Tensor] = {n: p for n, p in self.network.named_parameters() if n in values}
        if len(present) < len(values):
            present |= {f"buffer:{n}": b for n, b in self.network.named_buffers() if f"buffer:{n}" in values}
        kept = {name: p.data for name, p in present.items()}
        try:
            for name, parameter in present.items():
                parameter.data = full(values[name]).to(parameter.device)
            yield
        finally:
            for name, parameter in present.items():
                parameter.data = kept[name]

    def _lora(
        self, *, rank: int, alpha: float, dropout: float, targets: str | list[str], seed: int, task_type: str | None,
        new_tokens: Sequence[int] = (),
    ) -> None:  # fmt: skip
        layers = linear_names(self.network, self.head) if targets == "auto" else targets
        config = LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=layers, task_type=task_type,
            trainable_token_indices=_embedding_rows(self.network, list(new_tokens)) if new_tokens else None,
            fan_in_fan_out=any(_is_conv1d(module) for module in self.network.modules()),
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(seed_for(seed, "lora"))
            try:
                self.network = get_peft_model(self.network, config)
            except ValueError as error:
                way_out = "Use model.adapter.name: full" if targets == "auto" else "Name layers of this model, or auto"
                raise ConfigError(describe("model.adapter.targets", f"{error}", targets, way_out)) from error
        if self.head is not None:
            self.head.requires_grad_(True)
        for name, parameter in self.network.named_parameters():
            if name.removeprefix("base_model.model.").replace(".base_layer.", ".") in self.fresh:
                parameter.requires_grad_(True)

    @property
    def new_tokens(self) -> list[int]:
        """Return the tokens whose embeddings are trained beside a LoRA."""
        added = (arguments for operation, arguments in self.log if operation == "lora")
        return [token for arguments in added for token in arguments.get("new_tokens", ())]

    def _full(self) -> None:
        for parameter in self.network.parameters():
            parameter.requires_grad_(id(parameter) not in self._frozen)
        if not self.trainable():
            way_out = "Let some require gradients: requires_grad_(True); for a peft adapter: is_trainable=True"
            raise ModelError(describe("model", "all its parameters are frozen", type(self.network).__name__, way_out))

    def _freeze(self, *, parameters: list[str], frozen: bool = True) -> None:
        present = dict(self.network.named_parameters())
        for name in parameters:
            present[name].requires_grad_(not frozen and id(present[name]) not in self._frozen)

    def _operation(self, name: str) -> Callable[..., None]:
        built_in = {
            "lora": self._lora, "full": self._full, "labels": self._labels, "scale": self._scale,
            "thresholds": self._thresholds, "freeze": self._freeze,
        }  # fmt: skip
        if name in built_in:
            return built_in[name]
        known = [*OPERATIONS, *names("operation")]
        if name not in known and ":" not in name:
            raise ConfigError(
                describe("adapters", "unknown operation", name, f"{nearest(name, known)}Known: {', '.join(known)}")
            )
        return functools.partial(find("operation", name), self)

    def _scale(self, *, task: str, mean: float, std: float) -> None:
        """Let a task's number be learned as (number - mean) / std."""
        self.scales[task] = Scale(mean, std)

    def _thresholds(self, *, task: str, values: list[float]) -> None:
        """Take a task's labels from these chances on, in their order."""
        self.thresholds[task] = tuple(values)

    def _note_trained(self) -> None:
        known = self._trained  # what an operation replaced is let go
        self._trained = {id(p): p for p in self.network.parameters() if p.requires_grad or id(p) in known}

    def _labels(self, *, task: str, labels: list[str], seed: int) -> None:
        """Make room for a task's classes: a block of its own, or the shared head grown by the labels that are new."""
        new = [label for label in labels if label not in self.columns]
        for label in new:
            self.columns[label] = len(self.columns)
        self.task_labels[task] = tuple(labels)
        if self.head is None:
            return
        with torch.random.fork_rng():
            torch.manual_seed(seed_for(seed, "head", task))
            if self.head_mode == "task":
                self.task_blocks[task] = self.head.add_block(len(labels))
            elif new:
                self.head.add_block(len(new))
        self.head.to(next(self.network.parameters()).device)  # the network may have moved since the head was made


def _embedding_rows(network: nn.Module, tokens: list[int]) -> list[int] | dict[str, list[int]]:
    """Return which rows of which embeddings are trained for tokens, as peft takes it; it sees to tied ones itself."""
    incoming, outgoing = network.get_input_embeddings(), network.get_output_embeddings()
    if outgoing is None or outgoing.weight is incoming.weight:
        return tokens
    names = [name for name, module in network.named_modules() if module in (incoming, outgoing)]
    return {name.rpartition(".")[2]: tokens for name in names}


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silence what peft warns of at every turn and is not the user's business; other warnings come through."""
    with warnings.catch_warnings():
        # it asks transformers by a name that is going out of use
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", TIED)
        yield


def linear_names(network: nn.Module, head: nn.Module | None) -> list[str]:
    """Return the last name parts (`q_proj`, `dense`, ...) of all linear maps but the output layer, heads and LoRAs.

    Of a state-space layer (Mamba) `in_proj` alone: the others' weights are read past a LoRA, which would learn nothing.
    """
    skipped = set(head.modules()) if head is not None else set()
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    left_out = {"lm_head", "embed_out", "score", "classifier"}
    for layer in network.modules():
        if {"A_log", "D"} <= {name for name, _ in layer.named_parameters(recurse=False)}:
            left_out |= {name for name, _ in layer.named_children()} - {"in_proj"}
    names = {
        name.removesuffix(".base_layer").rpartition(".")[2]
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) or _is_conv1d(module))
        and ".lora_" not in name
        and module not in skipped
        and id(module.weight) not in embeddings
    }
    if not names - left_out:
        way_out = "Use model.adapter.name: full"
        raise ModelError(describe("model.adapter", "the model has no linear layer for LoRA", sorted(names), way_out))
    return sorted(names - left_out)


def _is_conv1d(module: nn.Module) -> bool:
    """Tell whether a module is GPT-2's linear map, whose matrix is [in, out]."""
    return type(module).__name__ == "Conv1D"


def last_linear(network: nn.Module) -> nn.Linear | None:
    """Return the last linear map of a network, or None."""
    return next((module for module in reversed(list(network.modules())) if type(module) is nn.Linear), None)


def is_peft(network: nn.Module) -> bool:
    """Tell whether the network carries peft adapters."""
    return isinstance(network, PeftModel)


def language_model(network: nn.Module) -> PreTrainedModel:
    """Return the transformers model, within peft's wrapper if there is one."""
    return network.get_base_model() if is_peft(network) else network

"""Soft prompts: trainable vectors that stand among the embedded tokens of a frozen language model."""

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from everlearn.errors import ConfigError, describe
from everlearn.models.adapters import Adapters, language_model
from everlearn.models.causal import CausalObjective
from everlearn.models.objectives import Batch

if TYPE_CHECKING:
    from everlearn.models.load import Model
    from everlearn.types import Task

AnyPrompts = TypeVar("AnyPrompts", bound="Prompts")
MODULE = "prompts"  # its name in the backbone


class Prompts(nn.Module):
    """Vectors put among the embedded tokens before the backbone, and cut out of what comes from it.

    Everything above the backbone (output layer, heads, loss, generation) sees the tokens alone, at their places. When
    text is generated the vectors go in with the prompt and stay in the cache.

    Args:
        network: a transformers model; the module hooks itself into its backbone.
        place: how many tokens stand before the vectors: 0, or 1 where the first token's output stands for the text.
    """

    def __init__(self, network: PreTrainedModel, place: int):
        super().__init__()
        self.place = place
        self.backbone = (network.base_model,)  # a tuple, so that torch doesn't see a module in itself
        self.names = list(inspect.signature(network.base_model.forward).parameters)
        self.n_put = 0  # vectors in the pass that is under way
        self.left_out = False  # whether passes go without them
        network.base_model.add_module(MODULE, self)
        network.base_model.register_forward_pre_hook(self._put_in, with_kwargs=True)
        network.base_model.register_forward_hook(self._take_out)

    @property
    def n_vectors(self) -> int:
        """Return how many vectors are put in."""
        raise NotImplementedError

    def vectors(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the vectors for a batch of the backbone's inputs: [batch, n_vectors, width]."""
        raise NotImplementedError

    def see(self, batch: Batch) -> None:
        """Take note of a batch of questions and answers that the model is about to be given."""

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the frozen embeddings of tokens [..., width], scaled as the model scales them."""
        return self.backbone[0].get_input_embeddings()(token_ids)

    def like_words(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return the embeddings [n, width] of random tokens, to begin with."""
        weight = self.backbone[0].get_input_embeddings().weight
        ids = torch.randint(len(weight), (n,), generator=generator)
        with torch.no_grad():
            return self.embed(ids.to(weight.device)).float()

    def _put_in(self, backbone: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        inputs = {**dict(zip(self.names, args, strict=False)), **kwargs}
        n, place, cache = 0 if self.left_out else self.n_vectors, self.place, inputs.get("past_key_values")
        going_on = cache is not None and cache.get_seq_length() > 0
        self.n_put = 0 if going_on else n
        if n == 0:
            return args, kwargs
        if not going_on:
            ids = inputs.pop("input_ids")
            tokens = self.embed(ids)
            vectors = self.vectors({**inputs, "input_ids": ids}).to(tokens.dtype)
            inputs["inputs_embeds"] = torch.cat([tokens[:, :place], vectors, tokens[:, place:]], dim=1)
            if inputs.get("token_type_ids") is not None:
                inputs["token_type_ids"] = _widen(inputs["token_type_ids"], place, n, 0)
        if inputs.get("attention_mask") is not None:
            inputs["attention_mask"] = _widen(inputs["attention_mask"], place, n, 1)
        for name in ("position_ids", "cache_position"):
            if inputs.get(name) is not None:
                inputs[name] = _shift(inputs[name], place, n, going_on)
        return (), inputs

    def _take_out(self, backbone: nn.Module, args: tuple, outputs: Any) -> Any:
        if self.n_put:
            hidden, place = outputs.last_hidden_state, self.place
            outputs.last_hidden_state = (
                torch.cat([hidden[:, :place], hidden[:, place + self.n_put :]], dim=1)
                if place
                else hidden[:, self.n_put :]
            )
        return outputs


def _widen(values: torch.Tensor, place: int, n: int, filling: int) -> torch.Tensor:
    """Return [batch, sequence + n] with `n` times `filling` after the first `place` columns."""
    return torch.cat([values[:, :place], values.new_full((len(values), n), filling), values[:, place:]], dim=1)


def _shift(positions: torch.Tensor, place: int, n: int, going_on: bool) -> torch.Tensor:
    """Return the positions [..., sequence] of tokens among which `n` vectors stand, with those of the vectors."""
    if going_on:
        return positions + n
    own = torch.arange(place, place + n, device=positions.device).expand(*positions.shape[:-1], n)
    return torch.cat([positions[..., :place], own, positions[..., place:] + n], dim=-1)


def prompts_of(network: nn.Module) -> Prompts | None:
    """Return the prompts of a network, or None."""
    return next((module for module in network.modules() if isinstance(module, Prompts)), None)


def own_prompts(network: nn.Module, kind: type[AnyPrompts]) -> AnyPrompts | None:
    """Return the prompts that a method of this kind put into a network, or None.

    Raises:
        ConfigError: if another method's are there.
    """
    found = prompts_of(network)
    if found is not None and not isinstance(found, kind):
        way_out = "Go on with the method that put them in, or begin anew"
        raise ConfigError(describe("model", "has prompts of another kind already", type(found).__name__, way_out))
    return found


def place_of(kind: str) -> int:
    """Return where vectors go in a kind of network: after [CLS] in a classifier, first of all in a causal model."""
    return 0 if kind == "causal" else 1


def freeze_backbone(adapters: Adapters) -> None:
    """Freeze all but heads, prompts and the parameters that the checkpoint lacked."""
    heads = {id(p) for p in adapters.head.parameters()} if adapters.head is not None else set()
    prompts = prompts_of(adapters.network)
    kept = heads | ({id(p) for p in prompts.parameters()} if prompts is not None else set())
    frozen = [
        name
        for name, p in adapters.trainable().items()
        if id(p) not in kept and _plain_name(name) not in adapters.fresh
    ]
    if frozen:
        adapters.do("freeze", parameters=frozen)


def check_room(model: "Model", task: "Task", n_vectors: int) -> None:
    """Raise ConfigError where a row of the task and the prompts are longer than the model's context."""
    limit = language_model(model.network).config.to_dict().get("max_position_embeddings")
    if limit is None or model.objective.max_length + n_vectors <= limit:
        return
    rows = [features for part in (task.train, task.evaluation) for features in model.objective.encode(part, task)]
    longest = max((len(row["input_ids"]) for row in rows), default=0)
    if isinstance(model.objective, CausalObjective) and task.kind == "prompt":
        room = model.objective.answer_room(task)
        longest = max([longest, *(n_prompt + room for n_prompt, _ in model.objective.lengths(task.evaluation, task))])
        longest = min(longest, model.objective.max_length)
    if longest + n_vectors > limit:
        way_out = f"Set model.max_length to {limit - n_vectors} or less, or use shorter prompts"
        where = f"task {task.name!r}"
        raise ConfigError(describe(where, f"rows and prompts don't fit the model's {limit} tokens", longest, way_out))


def _plain_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")

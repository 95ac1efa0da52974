"""Progressive prompts: a soft prompt for each task, put before those of earlier tasks; the model stays as it is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from everlearn.errors import check_number
from everlearn.models.adapters import Adapters
from everlearn.models.isolation import freeze_shared
from everlearn.models.prompts import Prompts, check_room, freeze_backbone, language_model, place_of, prompts_of
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.seeds import generator_for, seed_for
from everlearn.strategy import Strategy, learned
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.runs import Run

_REASON = "both put prompts into a frozen model, and there is room for one set"
_FROZEN = "progressive prompts freeze the LoRA, which then has nothing to learn"
_NO_WEIGHTS = "progressive prompts freeze the model's weights, so that there is nothing to share out or to freeze"


class PromptStack(Prompts):
    """A prompt for each task, the newest first. `n_active`: how many are put in, from the oldest on."""

    def __init__(self, network: PreTrainedModel, place: int):
        super().__init__(network, place)
        self.values = nn.ParameterList()
        self.mlp: nn.Sequential | None = None
        self.n_active = 0

    @property
    def n_vectors(self) -> int:
        return sum(len(value) for value in self.values[: self.n_active])

    def vectors(self, inputs: dict[str, Any]) -> torch.Tensor:
        prompts = [self.prompt(i) for i in reversed(range(self.n_active))]
        return torch.cat(prompts).expand(len(inputs["input_ids"]), -1, -1)

    def prompt(self, i: int) -> torch.Tensor:
        """Return task number i's prompt [length, width]; the newest one with what the MLP adds."""
        value = self.values[i]
        if self.mlp is None or i + 1 < len(self.values):
            return value
        with torch.autocast(value.device.type, enabled=False):  # so that folding it in changes nothing
            return value + self.mlp(value)


@register("operation", "add_prompt")
def add_prompt(adapters: Adapters, *, length: int, mlp: int, place: int, seed: int) -> None:
    """Begin another prompt with the embeddings of random tokens; fold into the last one what the MLP adds to it."""
    stack = prompts_of(adapters.network) or PromptStack(language_model(adapters.network), place)
    number = len(stack.values)
    if number:
        with torch.no_grad():
            stack.values[-1].copy_(stack.prompt(number - 1))
    value = stack.like_words(length, generator_for(seed, "prompt", number))
    stack.values.append(nn.Parameter(value))
    stack.n_active = number + 1
    if mlp:
        width = value.shape[1]
        with torch.random.fork_rng():
            torch.manual_seed(seed_for(seed, "prompt mlp", number))
            layers = nn.Sequential(nn.Linear(width, mlp), nn.ReLU(), nn.Linear(mlp, width)).to(value.device)
        if stack.mlp is None:
            stack.mlp = layers
        else:
            stack.mlp.load_state_dict(layers.state_dict())


@register("strategy", "progressive_prompts")
@dataclass
class ProgressivePrompts(Strategy):
    """Learn a soft prompt P_k per task, the model and earlier prompts frozen: the input is [P_k, ..., P_1, tokens].

    A task is scored with the prompts up to its own, so that nothing that comes later changes its answers. In
    classifiers the prompts stand after the first token; each task has its head, and weights that the checkpoint lacked
    (a pooler) are trained with the first task only. Model and LoRA are frozen, so that learner.learning_rate wants to
    be higher than for LoRA. A repeated task gets another prompt.

    Args:
        length: vectors in a task's prompt.
        mlp: hidden width of the residual MLP through which the prompt in training goes, 0 for none.

    Cost: the sequence grows by `length` tokens with every task; keeps length * width numbers a task.

    Source: Razdaibiedina et al. 2023, arXiv 2301.12314, section 3. Departs: decoder and encoder models, not T5; the MLP
    is off unless asked for, has one hidden layer and no dropout or norm.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    length: int = 10
    mlp: int = 0

    counts_: dict = learned(dict)  # task name -> how many prompts it is answered with

    isolates = True
    conflicts: ClassVar[dict[str, str]] = {
        "l2p": _REASON,
        "ema": "it puts back a prompt's trained values after the prompt was scored by their average",
        **dict.fromkeys(("inclora", "olora", "inflora", "aflora"), _FROZEN),
        **dict.fromkeys(("packnet", "pnn", "hat", "separate", "frozen", "seq_star", "osf"), _NO_WEIGHTS),
    }
    unsuited: ClassVar[dict[str, str]] = {
        "prompt": NO_LAYERS,
        "soft_prompt": "there is room for one set of prompts; leave out model.adapter's",
        "tensor": "soft prompts stand among the tokens of a language model",
        "shared_head": "a head that all tasks share changes what earlier ones answer; use model.head: task",
    }

    def __post_init__(self) -> None:
        check_number("progressive_prompts.length", self.length, low=1)
        check_number("progressive_prompts.mlp", self.mlp, low=0)

    def adapt_model(self, run: "Run", task: Task) -> None:
        adapters, before = run.model.adapters, prompts_of(run.model.network)
        n_before = len(before.values) if before is not None else 0
        check_room(run.model, task, (n_before + 1) * self.length)
        place = place_of(run.model.kind)
        adapters.do("add_prompt", length=self.length, mlp=self.mlp, place=place, seed=run.seed)
        stack = prompts_of(run.model.network)
        if n_before:
            new = {
                id(p) for module in (stack.values[-1:], stack.mlp) if module is not None for p in module.parameters()
            }
            freeze_shared(adapters, task, kept=[name for name, p in adapters.trainable().items() if id(p) in new])
        else:
            freeze_backbone(adapters)
        self.counts_[task.name] = len(stack.values)

    def before_eval(self, run: "Run", task: Task) -> None:
        stack = prompts_of(run.model.network)
        if stack is not None:
            stack.n_active = self.counts_.get(task.name, len(stack.values))

"""Progressive prompts: a soft prompt for each task, put before those of earlier tasks; the model stays as it is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from everlearn.errors import check_number
from everlearn.models.adapters import Adapters
from everlearn.models.isolation import freeze_shared
from everlearn.models.prompts import (
    Prompts,
    check_room,
    freeze_backbone,
    language_model,
    own_prompts,
    place_of,
    prompts_of,
)
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.seeds import generator_for, seed_for
from everlearn.strategy import ADDS_LAYERS, Strategy, learned
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run

_REASON = "both put prompts into a frozen model, and there is room for one set"
_FROZEN = "progressive prompts freeze the LoRA, which then has nothing to learn"
_NO_WEIGHTS = "progressive prompts freeze the model's weights, so that there is nothing to share out or to freeze"


class PromptStack(Prompts):
    """A prompt for each task, the newest first; of a task that came again, the prompt that it alone is answered with.

    Attributes:
        n_active: how many are put in, from the oldest on.
        own: whether the newest of those is replaced by the one in `again`.
    """

    def __init__(self, network: PreTrainedModel, place: int):
        super().__init__(network, place)
        self.values = nn.ParameterList()
        self.again = nn.ParameterDict()  # number of a prompt -> its copy that later tasks don't have below theirs
        self.mlp: nn.Sequential | None = None
        self.n_active = 0
        self.own = False
        self._trained: tuple[nn.Parameter, ...] = ()  # a tuple, so that torch doesn't list it twice

    @property
    def trained(self) -> nn.Parameter | None:
        """The prompt in training, to which the MLP adds."""
        return self._trained[0] if self._trained else None

    @property
    def n_vectors(self) -> int:
        return sum(len(value) for value in self.values[: self.n_active])

    def activate(self, n_active: int, own: bool) -> None:
        """Put in so many prompts, the newest of them as a task has it that came again, or as later ones have it."""
        self.n_active, self.own = n_active, own

    def vectors(self, inputs: dict[str, Any]) -> torch.Tensor:
        chosen = list(self.values[: self.n_active])
        if self.own:
            chosen[-1] = self.again[str(self.n_active - 1)]
        return torch.cat([self.prompt(value) for value in reversed(chosen)]).expand(len(inputs["input_ids"]), -1, -1)

    def prompt(self, value: nn.Parameter) -> torch.Tensor:
        """Return a task's prompt [length, width]; the one in training with what the MLP adds."""
        if self.mlp is None or value is not self.trained:
            return value
        with torch.autocast(value.device.type, enabled=False):  # so that folding it in changes nothing
            return value + self.mlp(value)

    def train_prompt(self, value: nn.Parameter, mlp: nn.Sequential | None) -> None:
        """Fold into the last prompt what the MLP adds to it, and go on with another one."""
        with torch.no_grad():
            for last in self._trained:
                last.copy_(self.prompt(last))
        self._trained = (value,)
        if self.mlp is None:
            self.mlp = mlp
        elif mlp is not None:
            self.mlp.load_state_dict(mlp.state_dict())


@register("operation", "add_prompt")
def add_prompt(adapters: Adapters, *, length: int, mlp: int, place: int, seed: int) -> None:
    """Begin another prompt with the embeddings of random tokens."""
    stack = prompts_of(adapters.network) or PromptStack(language_model(adapters.network), place)
    number = len(stack.values)
    value = nn.Parameter(stack.like_words(length, generator_for(seed, "prompt", number)))
    stack.values.append(value)
    stack.train_prompt(value, _layers(value, mlp, seed, number))
    stack.activate(number + 1, own=False)


@register("operation", "resume_prompt")
def resume_prompt(adapters: Adapters, *, number: int, copied: bool, mlp: int, seed: int) -> None:
    """Go on with a prompt, or with the copy of it that its task has to itself, from where it stands."""
    stack: PromptStack = prompts_of(adapters.network)
    shared, key = stack.values[number], str(number)
    if copied and key not in stack.again:
        stack.again[key] = nn.Parameter(stack.prompt(shared).detach().clone())
    value = stack.again[key] if copied else shared
    layers = _layers(value, mlp, seed, number)
    if layers is not None:
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
    stack.train_prompt(value, layers)
    stack.activate(number + 1, own=copied)


def _layers(value: torch.Tensor, mlp: int, seed: int, number: int) -> nn.Sequential | None:
    """Return the MLP that a prompt in training goes through, of hidden width `mlp`."""
    if not mlp:
        return None
    width = value.shape[1]
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "prompt mlp", number))
        return nn.Sequential(nn.Linear(width, mlp), nn.ReLU(), nn.Linear(mlp, width)).to(value.device)


@register("strategy", "progressive_prompts")
@dataclass
class ProgressivePrompts(Strategy):
    """Learn a soft prompt P_k per task, the model and earlier prompts frozen: the input is [P_k, ..., P_1, tokens].

    A task is scored with the prompts up to its own, so that nothing that comes later changes its answers. In
    classifiers the prompts stand after the first token; each task has its head, and weights that the checkpoint lacked
    (a pooler) are trained with the first task only. Model and LoRA are frozen, so that learner.learning_rate wants to
    be higher than for LoRA. A task that comes again goes on with its prompt; with a copy of it where other tasks have
    it below theirs. Tasks learned without this method, before it or in between, are answered with the prompts of then.

    Args:
        length: vectors in a task's prompt.
        mlp: hidden width of the residual MLP through which the prompt in training goes, 0 for none.

    Cost: the sequence grows by `length` tokens with every new task; keeps length * width numbers a task, twice that if
    it came again.

    Source: Razdaibiedina et al. 2023, arXiv 2301.12314, section 3. Departs: decoder and encoder models, not T5; the MLP
    is off unless asked for, has one hidden layer and no dropout or norm.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    length: int = 10
    mlp: int = 0

    counts_: dict = learned(dict)  # task name -> how many prompts it is answered with
    own_: dict = learned(dict)  # task name -> number of its prompt
    copied_: list = learned(list)  # names of the tasks that are answered with a copy of the newest of their prompts

    isolates = True
    conflicts: ClassVar[dict[str, str]] = {
        "l2p": _REASON,
        "ema": "it puts back a prompt's trained values after the prompt was scored by their average",
        **dict.fromkeys(("inclora", "olora", "inflora", "aflora"), _FROZEN),
        **dict.fromkeys(("packnet", "pnn", "hat", "separate", "frozen", "seq_star", "osf"), _NO_WEIGHTS),
    }
    unsuited: ClassVar[dict[str, str]] = {
        "trainer": ADDS_LAYERS,
        "prompt": NO_LAYERS,
        "preferences": "its prompts are chosen by a row's question, or begin as its words, and pairs have two texts",
        "packing": "its prompts stand before a sequence once, not before each of its rows",
        "soft_prompt": "there is room for one set of prompts; leave out model.adapter's",
        "tensor": "soft prompts stand among the tokens of a language model",
        "shared_head": "a head that all tasks share changes what earlier ones answer; use model.head: task",
    }

    def __post_init__(self) -> None:
        check_number("progressive_prompts.length", self.length, low=1)
        check_number("progressive_prompts.mlp", self.mlp, low=0)

    def adapt_model(self, run: "Run", task: Task) -> None:
        self._follow(run)
        if not self._go_on(run, task):
            self._begin(run, task)
        stack: PromptStack = prompts_of(run.model.network)
        adapters = run.model.adapters
        if not run.learned and len(stack.values) == 1:
            freeze_backbone(adapters)
            return
        modules = [] if stack.mlp is None else [stack.mlp]
        new = {id(stack.trained), *(id(p) for module in modules for p in module.parameters())}
        freeze_shared(adapters, task, kept=[name for name, p in adapters.network.named_parameters() if id(p) in new])

    def before_eval(self, run: "Run", task: Task) -> None:
        stack = prompts_of(run.model.network)
        if stack is not None:
            run.until_scored.callback(stack.activate, stack.n_active, stack.own)
            stack.activate(self.counts_.get(task.name, len(stack.values)), own=task.name in self.copied_)

    def _follow(self, run: "Run") -> None:
        """Take note of the prompts that were in the model while tasks were learned without this method."""
        stack = own_prompts(run.model.network, PromptStack)
        for name in run.learned_without(self):
            self.counts_[name] = 0 if stack is None else stack.n_active
            self.own_.pop(name, None)
            self.copied_ = [copied for copied in self.copied_ if copied != name]
            if stack is not None and stack.own:
                self.copied_.append(name)

    def _begin(self, run: "Run", task: Task) -> None:
        stack = prompts_of(run.model.network)
        n_before = 0 if stack is None else len(stack.values)
        check_room(run.model, task, (n_before + 1) * self.length)
        place = place_of(run.model.kind)
        run.model.adapters.do("add_prompt", length=self.length, mlp=self.mlp, place=place, seed=run.seed)
        self.counts_[task.name], self.own_[task.name] = n_before + 1, n_before
        self.copied_ = [copied for copied in self.copied_ if copied != task.name]

    def _go_on(self, run: "Run", task: Task) -> bool:
        """Go on with the prompt of a task that comes again, if it is the newest of its prompts and of no other's."""
        others = [n for name, n in self.counts_.items() if name != task.name]
        number = self.own_.get(task.name)
        if number is None or number + 1 in others:
            return False
        copied = task.name in self.copied_ or max(others, default=0) > number
        run.model.adapters.do("resume_prompt", number=number, copied=copied, mlp=self.mlp, seed=run.seed)
        if copied and task.name not in self.copied_:
            self.copied_.append(task.name)
        return True

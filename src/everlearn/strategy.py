"""The protocol: how a method that resists forgetting takes part in learning.

    for task in stream:                                    # runs.py, way.py
        strategy.adapt_model(run, task)                    # structure: adapters, columns, heads. ALL strategies first
        strategy.begin_task(run, task)                     # snapshots
        mixture = strategy.train_data(mixture, run)        # what is trained on: replay mixes in, joint adds tasks
        for micro_batches in loader(mixture):              # learners/sft.py
            for batch in micro_batches:
                loss = learner.loss(model, batch) + sum(strategy.penalty(step))
            strategy.edit_grads(step)                      # after accumulation, all-reduce, unscaling; BEFORE clipping
            clip(); optimizer.step(); strategy.after_step(step)
        strategy.end_task(run, task)                       # consolidate on the task's OWN data. REVERSED list order
        for t in tasks: strategy.before_eval(run, t)       # choose mask, column, adapter; then score

A strategy is a dataclass. Its fields are hyperparameters, checked in `__post_init__` and stored untouched; what it
learns stands in attributes whose names end in `_` (declare them with `learned`) and is saved and restored here.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from everlearn.errors import ConfigError, describe, nearest

if TYPE_CHECKING:
    from everlearn.types import Mixture, Rows, Step, Task
    from everlearn.way import Run

HOOKS = (
    "adapt_model", "begin_task", "train_data", "penalty", "edit_grads", "after_step", "end_task", "before_eval",
)  # fmt: skip

# why a method can't stand in another library's trainer (`everlearn.learners.bridge`)
ADDS_LAYERS = "it adds to the model, which a trainer's own checkpoints don't hold"
MAKES_ROWS = "it makes rows to train on from those of a task, and a trainer brings its own"
NEEDS_TARGETS = "it works on a loss that is a mean over right answers, which the one here is not"


def learned(default_factory: Callable[[], Any]) -> Any:
    """Declare a field of learned state: no constructor argument, not in the repr, saved and restored by the base."""
    return field(init=False, repr=False, compare=False, default_factory=default_factory)


class Strategy:
    """Base of all methods. Every hook does nothing; a method overrides the one to four that it needs."""

    name: ClassVar[str] = ""  # set by `register`
    conflicts: ClassVar[dict[str, str]] = {}  # name of another strategy -> why the two can't stand side by side
    unsuited: ClassVar[dict[str, str]] = {}  # trait of `Model.traits`, or "full+causal" for both -> why it can't work
    isolates: ClassVar[bool] = False  # what earlier tasks answer stays the same, bit for bit
    protects: ClassVar[bool] = False  # it only holds what earlier tasks answer: nothing to do where one isolates them
    keeps_weights: ClassVar[tuple[str, ...]] = ("anchor_",)  # learned {name: weights}; in others a new weight counts 0
    encloses: ClassVar[bool] = False  # its hooks come first, its `end_task` last, wherever it stands
    plans_steps: ClassVar[bool] = False  # reads `step.n_steps`, which must then be known from the start
    rereads: ClassVar[bool] = False  # it learns from earlier tasks' training rows, all of which are kept for it
    on_shards: ClassVar[bool] = False  # it needs no weights, and so works where each process holds but a part of them
    wants_past_logits: ClassVar[bool] = False  # `step.outputs.past` holds what the heads of earlier tasks answer
    neutral: ClassVar[dict[str, Any] | None] = None  # fields at which the method equals plain training bit for bit

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in vars(cls):
            if name in HOOKS or name.startswith("_") or name in vars(Strategy):
                continue
            if callable(vars(cls)[name]) and difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.8):
                where = f"{cls.__name__}.{name}"
                raise ConfigError(
                    describe(where, "is no hook", name, f"{nearest(name, HOOKS)}Hooks: {', '.join(HOOKS)}")
                )

    def adapt_model(self, run: "Run", task: "Task") -> None:
        """Change the model's structure through `run.model.adapters` before `task`: add adapters or heads, freeze."""

    def begin_task(self, run: "Run", task: "Task") -> None:
        """Take snapshots before the first step of `task`."""

    def train_data(self, mixture: "Mixture", run: "Run") -> "Mixture":
        """Return what the task is trained on."""
        return mixture

    def penalty(self, step: "Step") -> torch.Tensor | None:
        """Return a scalar to add to the mean loss of `step.batch`, or None. The loop scales it like that loss."""
        return None

    def edit_grads(self, step: "Step") -> None:
        """Change the gradients of `step.params` in place, once per optimizer step, before clipping."""

    def after_step(self, step: "Step") -> None:
        """Follow the optimizer's step."""

    def end_task(self, run: "Run", task: "Task") -> None:
        """Consolidate what was learned, from the task's own training rows."""

    def before_eval(self, run: "Run", task: "Task") -> None:
        """Make the model ready to be scored on `task`. What this changes is undone through `run.until_scored`."""

    def lay_in(self, run: "Run", task: "Task") -> None:
        """Let the weights in training be those that answer `task`, where others do, so that they can be exported."""

    def nearest_tasks(self, run: "Run", rows: "Rows") -> list[str]:
        """Return as which of the tasks learned each row is answered, where none is named."""
        raise NotImplementedError

    def check_model(self, traits: Sequence[str]) -> None:
        """Raise ConfigError where the method is unsuited for a model with these traits, with the reason."""
        if "sharded" in traits and not self.on_shards:
            what = "works on whole weights, of which fsdp leaves each process a part"
            way_out = f"Write fsdp: false, or leave {self.name} out"
            raise ConfigError(describe(f"strategy {self.name!r}", what, "fsdp: true", way_out))
        for unsuited, reason in self.unsuited.items():
            if set(unsuited.split("+")) <= set(traits):
                way_out = "Choose another model, adapter or head, or another method: everlearn ls strategies"
                raise ConfigError(describe(f"strategy {self.name!r}", reason, unsuited, way_out))

    def state(self) -> dict[str, Any]:
        """Return the learned state: tensors, and JSON values, in nested dicts and lists."""
        return {name: value for name, value in vars(self).items() if name.endswith("_")}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        for name, value in state.items():
            setattr(self, name, value)

    def facts(self) -> dict[str, Any]:
        """Return what is worth a line in the results after each task, as JSON: how much of a model is used, say."""
        return {}

    def state_bytes(self) -> int:
        """Return how many bytes the method keeps between tasks: tensors by size, other values as JSON text."""
        return _count_bytes(self.state())


def why_apart(first: type[Strategy], second: type[Strategy]) -> str | None:
    """Return why two methods can't stand side by side; None where they can."""
    for one, other in ((first, second), (second, first)):
        if other.name in one.conflicts:
            return one.conflicts[other.name]
        if one.isolates and other.protects:
            return f"{one.name} keeps what earlier tasks answer as it is, so that {other.name} has nothing to hold"
    return None


def overriding(strategies: list[Strategy], hook: str) -> list[Strategy]:
    """Return the strategies whose class overrides `hook`, so that the loop never calls an empty one."""
    return [s for s in strategies if vars(Strategy)[hook] is not _resolve(type(s), hook)]


def _resolve(cls: type, name: str) -> Any:
    return next(vars(base)[name] for base in cls.__mro__ if name in vars(base))


def _count_bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(len(str(key)) + _count_bytes(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(_count_bytes(item) for item in value)
    return len(str(value).encode())

"""Separate models: nothing is shared between tasks, nothing forgotten, nothing passed on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import ConfigError, describe
from everlearn.models.adapters import Adapters
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.strategy import Strategy, learned
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run

_FROM_THE_START = "each task starts again from the initial weights, which undoes what the other holds fixed"


@register("strategy", "separate")
@dataclass
class Separate(Strategy):
    """Learn each task from the initial weights and keep its trained weights for when it is asked for.

    The measure for what sharing gains or costs. What an earlier task answers stays the same, bit for bit. Tasks that
    were learned without this method, before it or in between, keep the weights that they left, together.

    Cost: one copy of the trainable weights for each task, and one of the initial ones.

    Source: single-task learning, a usual baseline. Departs: no.
    Reproduces: not applicable.
    """

    initial_: dict = learned(dict)  # weights and buffers before the first task, without heads
    weights_: dict = learned(dict)  # task name -> its weights and buffers

    isolates: ClassVar[bool] = True
    unsuited: ClassVar[dict[str, str]] = {
        "shared_head": "later tasks add classes to the head that all tasks answer by",
        "prompt": NO_LAYERS,
    }
    conflicts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("packnet", "pnn", "hat", "seq_star"), _FROM_THE_START),
        "inclora": "it changes the structure that a task's weights were kept for",
    }

    def adapt_model(self, run: "Run", task: Task) -> None:
        present = _moving(run.model.adapters)
        self._check(present)
        self.weights_ |= {name: _copies(present) for name in run.learned_without(self)}

    def begin_task(self, run: "Run", task: Task) -> None:
        present, head = _moving(run.model.adapters), run.model.adapters.head
        if not self.initial_:
            heads = {id(p) for p in head.parameters()} if head is not None else set()
            self.initial_ = {name: t.detach().clone() for name, t in present.items() if id(t) not in heads}
        with torch.no_grad():
            for name, tensor in self.initial_.items():
                present[name].copy_(tensor)

    def end_task(self, run: "Run", task: Task) -> None:
        self.weights_[task.name] = _copies(_moving(run.model.adapters))

    def _check(self, present: dict[str, torch.Tensor]) -> None:
        """Raise ConfigError where another method has changed, since, the structure that weights were kept for."""
        kept = [(name, tensor) for own in (self.initial_, *self.weights_.values()) for name, tensor in own.items()]
        gone = [name for name, tensor in kept if name not in present or present[name].shape != tensor.shape]
        if gone:
            way_out = "Go on with the method that was used in between, or begin anew"
            raise ConfigError(describe("strategy 'separate'", "weights it starts from are gone", gone[:3], way_out))

    def before_eval(self, run: "Run", task: Task) -> None:
        if task.name != run.current and task.name in self.weights_:
            run.until_scored.enter_context(run.model.adapters.using(self.weights_[task.name]))


def _copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _moving(adapters: Adapters) -> dict[str, torch.Tensor]:
    """Return what training changes: trainable parameters, and buffers."""
    trainable = adapters.trainable()
    return {name: t for name, t in adapters.tensors().items() if name in trainable or name.startswith("buffer:")}

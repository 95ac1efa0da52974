"""Weight averaging: what is scored and used is the moving average of the weights, over all tasks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_choice, check_number
from everlearn.functional.quadratic import follow
from everlearn.registry import register
from everlearn.strategy import Strategy, learned
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.runs import Run

_KEPT = "averaging over tasks moves weights that it keeps for single tasks"


def move_average(average: list[torch.Tensor], weights: list[torch.Tensor], decay: float) -> None:
    """Move each average, in place, to decay * average + (1 - decay) * weight."""
    torch._foreach_lerp_(average, [w.to(a.dtype) for a, w in zip(average, weights, strict=True)], 1 - decay)


@register("strategy", "ema")
@dataclass
class EMA(Strategy):
    """Keep a moving average of the weights, a <- decay * a + (1 - decay) * w after every step, over all tasks.

    At the end of a task the average stands in the model: it is scored, saved and exported. The next task goes on from
    the trained weights, which are put back for it. Scores on validation rows in mid-task are of the trained weights.

    Args:
        decay: share of the average that a step leaves; 1 / (1 - decay) steps weigh most.
        go_on_from: trained, or average, so that each task starts from the average.

    Cost: one sweep over the trainable weights a step; keeps two copies of them (one with go_on_from average).

    Source: Soutif-Cormerais et al. 2023, arXiv 2306.16817 (the average is used at test time only).
    Departs: no, unless go_on_from is average. The average is kept in float32.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    decay: float = 0.99
    go_on_from: str = "trained"

    average_: dict = learned(dict)  # parameter name -> its average
    trained_: dict = learned(dict)  # parameter name -> where training stood at the end of the task before

    keeps_weights: ClassVar[tuple[str, ...]] = ("average_", "trained_")
    conflicts: ClassVar[dict[str, str]] = dict.fromkeys(("packnet", "hat", "separate"), _KEPT)
    neutral: ClassVar[dict] = {"decay": 0.0}

    def __post_init__(self) -> None:
        check_number("ema.decay", self.decay, low=0, high=1)
        check_choice("ema.go_on_from", self.go_on_from, ("trained", "average"))

    def adapt_model(self, run: "Run", task: Task) -> None:
        weights = run.model.adapters.trainable()
        with torch.no_grad():
            for name, value in self.trained_.items():
                if name in weights:
                    weights[name].copy_(value)
        self.trained_ = {}

    def begin_task(self, run: "Run", task: Task) -> None:
        weights = run.model.adapters.trainable().items()
        kept = self.average_
        self.average_ = {name: kept[name] if name in kept else p.detach().float().clone() for name, p in weights}

    def after_step(self, step: Step) -> None:
        follow(next(iter(step.params.values())).device, self.average_)
        with torch.no_grad():
            move_average([self.average_[name] for name in step.params], list(step.params.values()), self.decay)

    def end_task(self, run: "Run", task: Task) -> None:
        weights = run.model.adapters.trainable()
        if self.go_on_from == "trained":
            self.trained_ = {name: p.detach().clone() for name, p in weights.items()}
        with torch.no_grad():
            for name, p in weights.items():
                p.copy_(self.average_[name])

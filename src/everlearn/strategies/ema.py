"""Weight averaging: what is scored and used is the moving average of the weights, over all tasks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_choice, check_number
from everlearn.functional.quadratic import follow
from everlearn.learners.statistics import renew_statistics, statistics_of
from everlearn.registry import register
from everlearn.strategy import Strategy, learned
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_KEPT = "averaging over tasks moves weights that it keeps for single tasks"


def share_of_step(decay: float, n: int) -> float:
    """Return how far the average moves to the n-th step's weights (from 1 on): (1 - decay) / (1 - decay^n), or 1/n.

    After n steps, step i then weighs (1 - decay) decay^(n - i) / (1 - decay^n), in sum 1: what stood there before the
    first step has no share in the average. With decay 1 all steps weigh alike.

    Source: Kingma & Ba 2015 (Adam), arXiv 1412.6980, section 3: the bias correction of an average that begins at 0.
    """
    return 1 / n if decay == 1 else (1 - decay) / (1 - decay**n)


def move_average(average: list[torch.Tensor], weights: list[torch.Tensor], share: float) -> None:
    """Move each average, in place, to (1 - share) * average + share * weight."""
    torch._foreach_lerp_(average, [w.to(a.dtype) for a, w in zip(average, weights, strict=True)], share)


@register("strategy", "ema")
@dataclass
class EMA(Strategy):
    """Keep a moving average of the weights, a <- a + (1 - decay) / (1 - decay^n) (w - a) after step n, over all tasks.

    At the end of a task the average stands in the model: it is scored, saved and exported; the running statistics of
    batch norms are measured anew for it. The next task goes on from the trained weights, which are put back for it,
    with their statistics. Scores on validation rows in mid-task are of the trained weights. n counts a weight's own
    steps: a head or LoRA that is new begins its average with its first step. Where tasks were learned without ema
    since, the average begins anew, and what was kept of the weights is let go.

    Args:
        decay: share of the average that a step leaves, once many were taken; 1 / (1 - decay) steps weigh most. 1 is
            the plain mean over all steps.
        go_on_from: trained, or average, so that each task starts from the average.
        batch_size: rows at once while statistics are measured anew.

    Cost: one sweep over the trainable weights a step; keeps two copies of them (one with go_on_from average). With
    batch norms, a forward pass over the task's rows after it.

    Source: Soutif-Cormerais et al. 2023, arXiv 2306.16817 (the average is used at test time only).
    Departs: no, unless go_on_from is average. The average is kept in float32, and corrected for its bias towards the
    weights of the start as in Adam, so that a short first task isn't answered by weights that hardly learned.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    decay: float = 0.99
    go_on_from: str = "trained"
    batch_size: int = 32

    average_: dict = learned(dict)  # parameter name -> its average
    n_steps_: int = learned(int)  # that the oldest average is over
    begun_: list = learned(list)  # [n_steps_ before an average's first step, names of the parameters that began then]
    trained_: dict = learned(dict)  # parameter or buffer -> where training stood at the end of the task before

    keeps_weights: ClassVar[tuple[str, ...]] = ("average_", "trained_")
    conflicts: ClassVar[dict[str, str]] = dict.fromkeys(("packnet", "hat", "separate"), _KEPT)
    neutral: ClassVar[dict] = {"decay": 0.0}

    def __post_init__(self) -> None:
        check_number("ema.decay", self.decay, low=0, high=1)
        check_choice("ema.go_on_from", self.go_on_from, ("trained", "average"))
        check_number("ema.batch_size", self.batch_size, low=1)

    def adapt_model(self, run: "Run", task: Task) -> None:
        if run.learned_without(self):  # weights of before would undo what these tasks learned
            self.average_, self.trained_, self.n_steps_, self.begun_ = {}, {}, 0, []
        moving = _moving(run)
        with torch.no_grad():
            for name, value in self.trained_.items():
                if name in moving:
                    moving[name].copy_(value)
        self.trained_ = {}

    def begin_task(self, run: "Run", task: Task) -> None:
        weights, kept = run.model.adapters.trainable(), self.average_
        self.average_ = {
            name: kept[name] if name in kept else p.detach().float().clone() for name, p in weights.items()
        }
        self.begun_ = [[n, [name for name in names if name in weights]] for n, names in self.begun_]
        known = {name for _, names in self.begun_ for name in names}
        self.begun_.append([self.n_steps_, [name for name in weights if name not in known]])
        self.begun_ = [entry for entry in self.begun_ if entry[1]]

    def after_step(self, step: Step) -> None:
        follow(next(iter(step.params.values())).device, self.average_)
        self.n_steps_ += 1
        with torch.no_grad():
            for n_before, names in self.begun_:
                averages, weights = [self.average_[name] for name in names], [step.params[name] for name in names]
                move_average(averages, weights, share_of_step(self.decay, self.n_steps_ - n_before))

    def end_task(self, run: "Run", task: Task) -> None:
        if self.go_on_from == "trained":
            self.trained_ = {name: tensor.detach().clone() for name, tensor in _moving(run).items()}
        with torch.no_grad():
            for name, p in run.model.adapters.trainable().items():
                p.copy_(self.average_[name])
        if self.decay > 0:
            renew_statistics(run, task, self.batch_size)


def _moving(run: "Run") -> dict[str, torch.Tensor]:
    """Return what training moves: the trainable weights, and the statistics of norms."""
    return {**run.model.adapters.trainable(), **statistics_of(run.model.adapters)}

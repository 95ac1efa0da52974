"""Riemannian walk: weights are held by a running Fisher, and by the loss they saved for each nat they moved."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_number
from everlearn.functional.path import Departure
from everlearn.functional.quadratic import add_anchored_gradients, follow
from everlearn.models.lora import NOT_BESIDE_NEW_LORAS
from everlearn.registry import register
from everlearn.strategy import NEEDS_TARGETS, Strategy, learned
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run


def walk_score(saved: torch.Tensor, fisher: torch.Tensor, moved: torch.Tensor, damping: float) -> torch.Tensor:
    """Return max(saved, 0) / (1/2 F moved^2 + damping): the loss saved for each nat of KL that the weight moved."""
    return saved.clamp(min=0) / (0.5 * fisher * moved.square() + damping)


def scaled_to_one(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors that are at least 0, divided by the largest value in any of them."""
    largest = torch.stack([tensor.max() for tensor in tensors.values()]).max().clamp(min=1e-32)
    return {name: tensor / largest for name, tensor in tensors.items()}


@register("strategy", "rwalk")
@dataclass
class RWalk(Strategy):
    """Penalise 1/2 * strength * sum_i (F_i + s_i) (w_i - w*_i)^2, F and s each scaled to at most 1 over all weights.

    F: running diagonal of the Fisher, F = alpha g^2 + (1 - alpha) F at every step (EWC++). s: sum over intervals of
    max(saved_i, 0) / (1/2 F_i moved_i^2 + damping), where saved_i is the loss that the weight's movement saved as in
    `si`; after each task the mean of the score up to then and the task's own. w*: the last weights.

    Args:
        strength: twice the paper's lambda, for the factor 1/2 that all quadratic penalties here have.
        alpha: share of the newest batch in the running Fisher.
        interval: optimizer steps over which `saved` and `moved` are taken before they are compared.
        damping: epsilon; keeps s finite for weights that hardly moved.

    Cost: a copy of gradients and weights a step; keeps four float32 copies of the trainable weights between tasks,
    seven within.

    Source: Chaudhry et al. 2018, arXiv 1801.10112, eq. 6 to 8; the rows it replays are left to `replay`.
    Departs: g^2 is that of the batch's summed gradient, divided by its rows, so that on average it is the Fisher per
    example where the mean gradient is small (the paper's shrinks as batches grow). The gradient is read when this
    method's turn comes, as in `si`.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    strength: float = 1.0
    alpha: float = 0.1
    interval: int = 10
    damping: float = 0.001

    precision_: dict = learned(dict)  # F + s, each scaled
    anchor_: dict = learned(dict)  # weights after the last task
    fisher_: dict = learned(dict)  # running
    score_: dict = learned(dict)  # s over all tasks so far
    task_score_: dict = learned(dict)  # s of the present task
    saved_: dict = learned(dict)  # over the present interval
    start_: dict = learned(dict)  # weights when the present interval began

    unsuited: ClassVar[dict[str, str]] = dict.fromkeys(("preferences", "rollouts"), NEEDS_TARGETS)
    protects: ClassVar[bool] = True
    conflicts: ClassVar[dict[str, str]] = NOT_BESIDE_NEW_LORAS
    neutral: ClassVar[dict] = {"strength": 0.0}

    def __post_init__(self) -> None:
        check_number("rwalk.strength", self.strength, low=0)
        check_number("rwalk.alpha", self.alpha, above=0, high=1)
        check_number("rwalk.interval", self.interval, low=1)
        check_number("rwalk.damping", self.damping, above=0)
        self._departure: Departure | None = None
        self._n_targets = self._n_rows = 0  # of the step

    def begin_task(self, run: "Run", task: Task) -> None:
        weights = run.model.adapters.trainable()
        self.start_ = {name: p.detach().to(torch.float32, copy=True) for name, p in weights.items()}
        if run.learned_without(self) and self.anchor_:  # what others learned since is not to be undone
            self.anchor_ = {name: start.clone() for name, start in self.start_.items()}
        self.saved_ = {name: torch.zeros_like(start) for name, start in self.start_.items()}
        self.task_score_ = {name: torch.zeros_like(start) for name, start in self.start_.items()}

    def penalty(self, step: Step) -> None:
        """Add nothing; count, for `edit_grads` doesn't see each micro-batch."""
        self._n_targets += len(step.outputs.targets)
        self._n_rows += len(step.rows)

    def edit_grads(self, step: Step) -> None:
        self._departure = Departure.of(step.params, may_overflow=step.run.accelerator.scaler is not None)
        # the loss is a mean over targets, an example is a row: (n_targets * g)^2 / n_rows
        scale = step.run.processes.sum(self._n_targets) ** 2 / step.run.processes.sum(self._n_rows)
        self._n_targets = self._n_rows = 0
        device = next(iter(step.params.values())).device
        follow(device, self.fisher_, self.saved_, self.start_, self.task_score_)
        names, gradients = self._departure.names, self._departure.gradients
        for name, gradient in zip(names, gradients, strict=True):
            if name not in self.fisher_:  # begins with its first batch, which the average then leaves as it is
                self.fisher_[name] = gradient.square().mul_(scale)
        if names:
            fisher = [self.fisher_[name] for name in names]
            torch._foreach_mul_(fisher, 1 - self.alpha)
            torch._foreach_addcmul_(fisher, gradients, gradients, value=self.alpha * scale)
        add_anchored_gradients(step.params, self.anchor_, self.strength, self.precision_)

    def after_step(self, step: Step) -> None:
        if self._departure.names:
            saved = [self.saved_[name] for name in self._departure.names]
            torch._foreach_add_(saved, self._departure.loss_decrease(step.params))
        self._departure = None
        if (step.index + 1) % self.interval == 0:
            self._close_interval(step.params)

    def _close_interval(self, weights: dict[str, torch.nn.Parameter]) -> None:
        for name in self.saved_.keys() & self.fisher_.keys() & weights.keys():
            now = weights[name].detach().float()
            moved = now - self.start_[name]
            self.task_score_[name] += walk_score(self.saved_[name], self.fisher_[name], moved, self.damping)
            self.start_[name].copy_(now)
            self.saved_[name].zero_()

    def end_task(self, run: "Run", task: Task) -> None:
        follow(run.accelerator.device, self.fisher_, self.saved_, self.start_, self.task_score_, self.score_)
        weights = run.model.adapters.trainable()
        self._close_interval(weights)
        for name, score in self.task_score_.items():
            self.score_[name] = 0.5 * (self.score_[name] + score) if name in self.score_ else score
        if self.fisher_:
            fisher, score = scaled_to_one(self.fisher_), scaled_to_one(self.score_)
            self.precision_ = {name: fisher[name] + score[name] for name in fisher}
        self.anchor_ = {name: p.detach().to(torch.float32, copy=True) for name, p in weights.items()}
        self.task_score_, self.saved_, self.start_ = {}, {}, {}

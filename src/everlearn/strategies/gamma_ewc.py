"""Gamma-gated EWC: how firmly a task is held follows how well the model does while it learns the task."""

import math
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import check_number
from everlearn.functional import kfac
from everlearn.functional.running import Running, means_of, with_step
from everlearn.memory.quadratic import FisherMemory
from everlearn.models.objectives import losses_at
from everlearn.registry import register
from everlearn.strategy import NEEDS_TARGETS, learned
from everlearn.types import Outputs, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

SIGNALS = ("nll", "accuracy", "gradient_norm", "entropy")


@register("strategy", "gamma_ewc")
@dataclass
class GammaEWC(FisherMemory):
    """EWC whose Fisher of a task is added gamma times, gamma = clip(1 + gamma_strength * sum_i w_i z_i, low, high).

    z_i are four signals of each optimizer step: how many standard deviations it lies above the running mean over all
    steps so far, of all tasks, itself included. A task's gamma is the mean over its steps. By default the weights w_i
    are a mean of the four with signs for how well the model does: a task that it comes to know counts more than one
    that it never learns, whose Fisher is large (it grows with the entropy) and is taken where there is no minimum.

    Args:
        strength: lambda, as in `ewc`.
        fisher, mode, decay: as in `ewc`.
        batch_size: rows at once while the Fisher is computed; the result doesn't depend on it.
        n_samples: rows of the task that the Fisher is taken over, at most; null takes all.
        gamma_strength: how far gamma follows the signals; at 0 it is 1.
        nll_weight: of the mean loss over the task's own targets, nats. Below 0: what is not fitted is no mode, and a
            quadratic around it tells little.
        accuracy_weight: of the share of these targets that are right. Above 0: it is there to be lost.
        gradient_norm_weight: of the step's gradient, before clipping and this method's own. Below 0: where it is large
            the weights are still on their way.
        entropy_weight: of the mean entropy of the model's answers, nats. Below 0: an unsure model's Fisher is large,
            and what it answers is not worth holding.
        low, high: bounds of gamma. 1 lies between them.
        bypass_gamma: measure nothing, so that this is `ewc`.

    Cost: that of `ewc`, and a softmax over the outputs at the targets for each batch.

    Source: none published; the signals, `strength`, `n_samples`, `batch_size` and `gamma_strength` are those of a
    notebook on Gemma-2B. EWC: Kirkpatrick et al. 2017, arXiv 1612.00796.
    Departs: the notebook's signs, weights and bounds, and how it makes one number of a task's batches, are not known.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    strength: float = 250.0
    batch_size: int = 10
    n_samples: int | None = 25
    gamma_strength: float = 3.0
    nll_weight: float = -0.25
    accuracy_weight: float = 0.25
    gradient_norm_weight: float = -0.25
    entropy_weight: float = -0.25
    low: float = 0.1
    high: float = 10.0
    bypass_gamma: bool = False

    running_: dict = learned(dict)  # signal -> a `Running` over all steps [3], float64
    curve_: dict = learned(dict)  # of the present task, see `with_step`

    unsuited: ClassVar[dict[str, str]] = dict.fromkeys(("preferences", "rollouts"), NEEDS_TARGETS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_samples is not None:
            check_number("gamma_ewc.n_samples", self.n_samples, low=1)
        check_number("gamma_ewc.gamma_strength", self.gamma_strength, low=0)
        for signal in SIGNALS:
            check_number(f"gamma_ewc.{signal}_weight", vars(self)[f"{signal}_weight"])
        check_number("gamma_ewc.low", self.low, low=0, high=1)
        check_number("gamma_ewc.high", self.high, low=1)
        self._sums: list[torch.Tensor] = []  # of the step's micro-batches
        self._sums_of = -1  # number of that step

    @property
    def most_rows(self) -> int | None:
        return self.n_samples

    def begin_task(self, run: "Run", task: Task) -> None:
        super().begin_task(run, task)
        self.curve_ = {}
        self._sums_of = -1

    def penalty(self, step: Step) -> None:
        """Add nothing; measure, for `edit_grads` doesn't see each micro-batch."""
        if self.bypass_gamma:
            return
        if step.index != self._sums_of:  # also after a step that fp16 passed over
            self._sums, self._sums_of = [], step.index
        self._sums.append(sums_over_targets(step.outputs, step.items_of({0})))

    def edit_grads(self, step: Step) -> None:
        if not self.bypass_gamma:
            self._follow_signals(step)
        super().edit_grads(step)

    def _follow_signals(self, step: Step) -> None:
        gradients = [p.grad for p in step.params.values() if p.grad is not None]
        if not gradients:
            return
        here = self._sums if self._sums_of == step.index else []  # none where this process had no row
        total = torch.stack([torch.zeros(4, device=gradients[0].device), *here]).sum(0)
        step.run.processes.all_reduce([total])
        n, *sums = total.tolist()
        norm = nn.utils.get_total_norm(gradients).item()
        if n == 0 or not math.isfinite(norm):
            return
        nll, right, entropy = (value / n for value in sums)
        signals = dict(zip(SIGNALS, (nll, right, norm, entropy), strict=True))
        self.add_step({name: value for name, value in signals.items() if not math.isnan(value)})

    def add_step(self, signals: dict[str, float]) -> float:
        """Take in one step's signals, those of SIGNALS that can be measured, and return its gamma."""
        pull = 0.0
        for name, value in signals.items():
            running = Running(*self.running_[name].tolist()) if name in self.running_ else Running()
            running.add(value)
            self.running_[name] = torch.tensor(astuple(running), dtype=torch.float64)
            pull += vars(self)[f"{name}_weight"] * running.score(value)
        gamma = min(max(1.0 + self.gamma_strength * pull, self.low), self.high)
        self.curve_ = with_step(self.curve_, {"gamma": gamma, **signals})
        return gamma

    @property
    def gamma(self) -> float:
        """Mean of gamma over the present task's steps; 1 where there was none."""
        return 1.0 if self.bypass_gamma or not self.curve_ else means_of(self.curve_)["gamma"]

    def estimate(self, run: "Run", task: Task) -> dict[str, torch.Tensor]:
        """Return gamma times the diagonal of the Fisher, as `FisherMemory.estimate` does."""
        gamma = self.gamma
        return {name: gamma * importance for name, importance in super().estimate(run, task).items()}

    def estimate_factors(self, run: "Run", task: Task) -> kfac.Factors:
        """Return gamma times the Fisher in Kronecker factors, as `FisherMemory.estimate_factors` does."""
        factors, gamma = super().estimate_factors(run, task), self.gamma
        return {names: {**factor, "gradients": gamma * factor["gradients"]} for names, factor in factors.items()}

    def facts(self) -> dict[str, Any]:
        """Return the task's gamma, the signals' means, and the curve: means over the steps up to each of `step`."""
        if self.bypass_gamma or not self.curve_:
            return {}
        means, steps = means_of(self.curve_), self.curve_["steps"]
        curve = {name: [short(value) for value in (self.curve_[name] / steps).tolist()] for name in means}
        return {
            "gamma": short(means["gamma"]),
            "signals": {name: short(means[name]) for name in SIGNALS if name in means},
            "curve": {"step": steps.cumsum(0).int().tolist(), **curve},
        }


@torch.no_grad()
def sums_over_targets(outputs: Outputs, chosen: torch.Tensor) -> torch.Tensor:
    """Return how many targets are chosen, and over them the sums of losses, right answers and entropies [4], float32.

    Args:
        chosen: bool [n_items].

    The last two are NaN of real targets, which have no classes.
    """
    logits, targets = outputs.logits[chosen].float(), outputs.targets[chosen]
    if outputs.family != "categorical":
        nll = losses_at(outputs, chosen).sum()
        right = entropy = nll.new_tensor(math.nan)
    else:
        log_p = F.log_softmax(logits, dim=-1)
        nll = -log_p.gather(1, targets[:, None]).sum()
        right = (log_p.argmax(-1) == targets).sum().to(nll.dtype)
        entropy = -(log_p.exp() * log_p).sum()
    return torch.stack([nll.new_tensor(len(targets)), nll, right, entropy])


def short(value: float) -> float:
    """Return a number to four digits."""
    return float(f"{value:.4g}")

"""AFLoRA: LoRA's matrices are frozen one after another in the course of a task; vectors behind them go on learning."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_number
from everlearn.functional.quadratic import follow
from everlearn.models.adapters import Adapters
from everlearn.models.lora import ScaledLinear, lora_layers
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.strategy import ADDS_LAYERS, Strategy, learned
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_REASON = "aflora freezes the one LoRA that all tasks share, which this method begins anew with every task"


def frozen_share(index: int, n_steps: int, start: float, end: float) -> float:
    """Return the share of matrices to be frozen at a step: 0 before `start`, then 1 - (1 - progress)^3, 1 in `end`.

    Args:
        index: steps done, of `n_steps`; start, end: shares of the steps at the beginning and at the end.
    """
    between = n_steps * (1 - start - end)
    if index < n_steps * start:
        return 0.0
    if index >= n_steps * (1 - end) or between <= 0:
        return 1.0
    return 1 - (1 - (index - n_steps * start) / between) ** 3


Tensors = list[torch.Tensor]


def follow_sensitivity(mean: Tensors, spread: Tensors, gradients: Tensors, beta1: float, beta2: float) -> None:
    """Move, in place, the average of |g| (by beta1) and that of its distance from the average (by beta2)."""
    size = torch._foreach_abs(gradients)
    torch._foreach_lerp_(mean, size, 1 - beta1)
    torch._foreach_lerp_(spread, torch._foreach_abs(torch._foreach_sub(size, mean)), 1 - beta2)


@register("operation", "lora_vectors")
def lora_vectors(adapters: Adapters) -> None:
    """Put a trainable vector, at first 1, behind each matrix of the LoRA in training."""
    name = adapters.network.active_adapter
    for layer in lora_layers(adapters.network).values():
        for matrices in (layer.lora_A, layer.lora_B):
            matrices[name] = ScaledLinear(matrices[name])


@register("strategy", "aflora")
@dataclass
class AFLoRA(Strategy):
    """Train v_B * (B (v_A * (A x))) beside each frozen layer, and freeze the A and B that learn least, until all are.

    A matrix's score is the mean of I * U: I the moving average of |gradient|, U that of | |gradient| - I |. At each
    review the lowest are frozen, to the share that the cubic schedule of `frozen_share` asks for. The vectors v are
    trained to the end.

    Args:
        start: share of a task's steps before anything is frozen.
        end: share of its steps, at the end, in which all matrices are.
        every: steps from review to review.
        beta1, beta2: decays of the two averages.
        thaw: let a new task train all matrices again; if not, what is frozen stays so.

    Cost: rank + outputs numbers a layer; keeps two copies of the matrices that aren't frozen yet, during a task.

    Source: Liu et al. 2024, arXiv 2403.13269; betas and schedule from the authors' code. Departs: starts as
    plain LoRA does (B = 0, v = 1); frozen matrices get gradients that are thrown away, so that no time is saved; what
    happens from task to task (`thaw`), for the paper learns one.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    start: float = 0.05
    end: float = 0.7
    every: int = 10
    beta1: float = 0.85
    beta2: float = 0.95
    thaw: bool = True

    frozen_: list = learned(list)  # names of frozen matrices
    mean_: dict = learned(dict)  # name of a matrix that still learns -> I
    spread_: dict = learned(dict)  # the same -> U

    plans_steps: ClassVar[bool] = True
    conflicts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("inclora", "olora", "inflora"), _REASON),
        **dict.fromkeys(("packnet", "pnn", "hat"), "both decide which matrices of the LoRA a task learns"),
    }
    unsuited: ClassVar[dict[str, str]] = {
        "trainer": ADDS_LAYERS,
        "full": "there is no LoRA to freeze: all weights are trained",
        "prompt": NO_LAYERS,
    }

    def __post_init__(self) -> None:
        check_number("aflora.start", self.start, low=0, high=1)
        check_number("aflora.end", self.end, low=0, high=1 - self.start)
        check_number("aflora.every", self.every, low=1)
        check_number("aflora.beta1", self.beta1, low=0, high=1)
        check_number("aflora.beta2", self.beta2, low=0, high=1)

    def adapt_model(self, run: "Run", task: Task) -> None:
        if not any(isinstance(module, ScaledLinear) for module in run.model.network.modules()):
            run.model.adapters.do("lora_vectors")

    def begin_task(self, run: "Run", task: Task) -> None:
        weights = run.model.adapters.trainable()
        self.frozen_ = [] if self.thaw else [name for name in self.frozen_ if name in weights]
        matrices = {name: p.detach() for name, p in weights.items() if _is_matrix(name) and name not in self.frozen_}
        self.mean_ = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}
        self.spread_ = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}

    def edit_grads(self, step: Step) -> None:
        for name in self.frozen_:
            step.params[name].grad = None  # the optimizer leaves it alone, weight decay and momentum too
        names = [name for name in self.mean_ if step.params[name].grad is not None]
        if not names:
            return
        follow(step.params[names[0]].device, self.mean_, self.spread_)
        mean, spread = [self.mean_[n] for n in names], [self.spread_[n] for n in names]
        with torch.no_grad():
            follow_sensitivity(mean, spread, [step.params[n].grad for n in names], self.beta1, self.beta2)
        if step.index % self.every == 0:
            total = len(self.frozen_) + len(self.mean_)
            due = int(frozen_share(step.index, step.n_steps, self.start, self.end) * total) - len(self.frozen_)
            if due > 0:
                scores = torch.stack([(i * u).mean() for i, u in zip(mean, spread, strict=True)]).tolist()
                for _, name in sorted(zip(scores, names, strict=True))[:due]:
                    self._freeze(name, step)

    def end_task(self, run: "Run", task: Task) -> None:
        self.mean_, self.spread_ = {}, {}

    def _freeze(self, name: str, step: Step) -> None:
        self.frozen_.append(name)
        del self.mean_[name], self.spread_[name]
        step.params[name].grad = None


def _is_matrix(name: str) -> bool:
    return (".lora_A." in name or ".lora_B." in name) and name.endswith(".weight")

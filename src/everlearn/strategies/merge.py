"""Merging after each task: what the task changed is merged with what the earlier ones changed, weight by weight."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from peft.utils.merge_utils import dare_linear, dare_ties, ties

from everlearn.errors import check_choice, check_number
from everlearn.learners.statistics import renew_statistics
from everlearn.models.lora import NOT_BESIDE_NEW_LORAS
from everlearn.registry import register
from everlearn.seeds import seed_for
from everlearn.strategy import Strategy, learned
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run

METHODS = {"ties": ties, "dare_linear": dare_linear, "dare_ties": dare_ties}

_KEPT = "merging tasks moves weights that it keeps for single tasks"
_BOTH = "both replace the weights at the end of a task, and the one that comes last undoes the other's"


def merge(
    base: torch.Tensor, before: torch.Tensor, now: torch.Tensor, method: str, share: float, density: float
) -> torch.Tensor:
    """Return base + the merger of two changes of it, before - base and now - base; `share` is the weight of the second.

    linear: (1 - share) * before + share * now; the base cancels out. ties: of each change the largest entries are kept,
    a share `density` of them; each weight takes the sign with the greater sum, and the mean of the kept entries of that
    sign. dare_linear, dare_ties: entries are dropped at random (global generator), the rest is divided by `density`.
    """
    if method == "linear":
        return torch.lerp(before, now, share)
    total = 2 if method.endswith("ties") else 1  # ties divides by the number of entries kept
    weights = torch.tensor([total * (1 - share), total * share], device=base.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The density", UserWarning)  # density 1 is as good as any
        change = METHODS[method]([before.float() - base.float(), now.float() - base.float()], weights, density)
    return (base.float() + change).to(now.dtype)


@register("strategy", "merge")
@dataclass
class Merge(Strategy):
    """After each task, merge its change with that of the tasks before; the next one starts from the merged weights.

    A change is what lies between the weights and the base: the weights before the first task (of a weight that is new,
    before the task that brought it). So the task's change holds that of the earlier ones too, from which it started.
    Merged are the weights that both this task and an earlier one have moved; others, such as other tasks' heads, stay.

    Args:
        method: linear (weighted mean), ties (trimmed, signs elected), dare_linear or dare_ties (dropped at random).
        share: weight of the new task's change, 0 to 1; null: 1/t at task number t since the base, so that all tasks
            weigh alike, those too that were learned without merging.
        density: share of a change's entries that ties and dare keep, in each weight matrix.
        batch_size: rows at once while the running statistics of batch norms are measured anew, for the merged weights.

    Cost: keeps a copy of the trainable weights, two during a task; merging is one sweep over them. With batch norms, a
    forward pass over the task's rows after it.

    Source: ties: Yadav et al. 2023, arXiv 2306.01708; dare: Yu et al. 2024, arXiv 2311.03099; changes relative to the
    base after training one task from the last: Marczak et al. 2024 (MagMax), arXiv 2407.06322.
    Departs: two changes are merged at a time, in the memory of two; ties trims each matrix by itself (peft's function);
    LoRA's A and B are merged as weights, not their product.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    method: str = "linear"
    share: float | None = None
    density: float = 0.5
    batch_size: int = 32

    base_: dict = learned(dict)  # parameter name -> its value before anything was learned
    start_: dict = learned(dict)  # parameter name -> its value before the present task
    n_before_: int = learned(int)  # tasks learned before the base was taken

    keeps_weights: ClassVar[tuple[str, ...]] = ("base_",)
    conflicts: ClassVar[dict[str, str]] = {
        **NOT_BESIDE_NEW_LORAS,
        **dict.fromkeys(("packnet", "pnn", "hat", "separate", "progressive_prompts"), _KEPT),
        "ema": _BOTH,
    }
    neutral: ClassVar[dict] = {"method": "linear", "share": 1.0}

    def __post_init__(self) -> None:
        check_choice("merge.method", self.method, ("linear", *METHODS))
        check_number("merge.density", self.density, above=0, high=1)
        check_number("merge.batch_size", self.batch_size, low=1)
        if self.share is not None:
            check_number("merge.share", self.share, low=0, high=1)

    def begin_task(self, run: "Run", task: Task) -> None:
        if not self.base_:
            self.n_before_ = len(run.learned)
        self.start_ = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
        for name, value in self.start_.items():
            self.base_.setdefault(name, value.clone())

    def end_task(self, run: "Run", task: Task) -> None:
        share = 1 / (len(run.learned) + 1 - self.n_before_) if self.share is None else self.share
        moved = False
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed_for(run.seed, "merge", run.position, task.name))
            for name, p in run.model.adapters.trainable().items():
                if name not in self.start_:
                    continue
                base, start = self.base_[name].to(p.device), self.start_[name].to(p.device)
                if not torch.equal(p, start) and not torch.equal(start, base):
                    merged = merge(base, start, p, self.method, share, self.density)
                    moved = moved or not torch.equal(merged, p)
                    p.copy_(merged)
        self.start_ = {}
        if moved:
            renew_statistics(run, task, self.batch_size)

"""Whether an expert that is there would have done as well as a new one, and the rows that this is judged by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from everlearn.evaluation.stats import paired_difference
from everlearn.learners.budget import HELD_SHARE, LEAST_HELD, LEAST_ROWS, MOST_HELD
from everlearn.seeds import generator_for
from everlearn.types import Rows, Task

if TYPE_CHECKING:
    from everlearn.way import Run

CONFIDENT = 0.8


def as_good(reused: Sequence[float], new: Sequence[float], margin: float) -> bool:
    """Return whether an expert that is there answers items as well as one that learned them.

    It does unless the other is better by more than `margin` in the mean, and that is hardly chance: the 80% interval of
    the paired difference lies above 0. Of experts that do as well, up to one in ten is then called worse, which is the
    router's usual risk; 95% would call nothing worse on a handful of items.

    Args:
        reused, new: outcomes of the same items, in their order.
    Source: see `everlearn.evaluation.stats.paired_difference`.
    """
    gain = paired_difference(reused, new, CONFIDENT)
    return not (gain.difference > margin and gain.low > 0)


def can_hold_out(rows: Rows) -> bool:
    """Tell whether there are rows enough to keep some out of training."""
    return len(rows) >= LEAST_ROWS


def held_out(run: "Run", task: Task, rows: Rows) -> list[int]:
    """Return which of a task's training rows are kept out to judge by: a tenth, 8 to 200; none where they are few."""
    if not can_hold_out(rows):
        return []
    order = torch.randperm(len(rows), generator=generator_for(run.seed, run.position, task.name, "experts"))
    return sorted(order[: min(MOST_HELD, max(LEAST_HELD, round(HELD_SHARE * len(rows))))].tolist())

"""Runs against each other, two by two, at the end of the stream and on the same items."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from everlearn.evaluation.stats import paired_seeds
from everlearn.report.matrix import SeedMatrix
from everlearn.report.views import RunView

MAX_ALL_PAIRS = 4  # with more runs, each is compared with the first only


@dataclass(frozen=True)
class Comparison:
    """Run `second` minus run `first` at the end of the stream. `task` is None for all tasks together."""

    first: str
    second: str
    task: str | None
    difference: float
    low: float
    high: float
    p_value: float
    over: str
    test: str


def paired_comparisons(views: Sequence[RunView]) -> list[Comparison]:
    """Compare the runs two by two at the end of the stream, on the same items.

    With one seed in common the items are the units: exact McNemar (right/wrong) or paired t. With more, seeds and items
    are, see `everlearn.evaluation.stats.paired_seeds`. "All tasks" pools the items, if all tasks are measured alike.
    P-values are not corrected for the number of comparisons. Runs share items if their recipes name the same stream and
    the item counts agree.
    """
    pairs = combinations(views, 2) if len(views) <= MAX_ALL_PAIRS else ((views[0], other) for other in views[1:])
    return [row for first, second in pairs for row in _compare(first, second)]


def _compare(first: RunView, second: RunView) -> Iterator[Comparison]:
    if first.run.recipe.get("stream") != second.run.recipe.get("stream"):
        return
    ends = [{m.seed: _final_outcomes(m) for m in view.started if m.complete} for view in (first, second)]
    seeds = [seed for seed in ends[0] if seed in ends[1]]
    shared = [_shared_tasks(ends[0][seed], ends[1][seed]) for seed in seeds]
    tasks = [task for task in (shared[0] if shared else []) if all(task in own for own in shared)]
    if not tasks:
        return
    alike = len({matrix.metric_names[task] for matrix in first.started for task in tasks}) == 1
    for task in [*([None] if alike and len(tasks) > 1 else []), *tasks]:
        names = tasks if task is None else [task]
        before, after = ([np.concatenate([end[seed][name] for name in names]) for seed in seeds] for end in ends)
        yield Comparison(first.name, second.name, task, *_difference(before, after))


def _difference(
    before: Sequence[np.ndarray], after: Sequence[np.ndarray]
) -> tuple[float, float, float, float, str, str]:
    """Return difference, low, high, p-value, the units and the test, for outcomes [n_items] of each seed."""
    paired = paired_seeds(before, after)
    over = f"{paired.n} items" if len(before) == 1 else f"{len(before)} seeds × {paired.n} items"
    return paired.difference, paired.low, paired.high, paired.p_value, over, paired.test


def _final_outcomes(matrix: SeedMatrix) -> dict[str, np.ndarray]:
    last = matrix.last_step
    return {task: outcomes for (step, task), outcomes in matrix.outcomes.items() if step == last}


def _shared_tasks(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> list[str]:
    return [task for task in first if task in second and len(first[task]) == len(second[task])]

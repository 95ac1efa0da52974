"""The stream metrics of a run with intervals: over items, and over seeds where there are several."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from everlearn.errors import StateError
from everlearn.evaluation import metrics
from everlearn.evaluation.stats import (
    LEVEL,
    Interval,
    at_level,
    combine_intervals,
    difference_of_intervals,
    highest_interval,
    paired_difference,
    seeds_interval,
)
from everlearn.report.matrix import SeedMatrix

CHANGES = ("backward_transfer", "forward_transfer", "forgetting")  # differences of two scores of a task
STREAM_METRICS = (
    "average_accuracy",
    "backward_transfer",
    "forward_transfer",
    "forgetting",
    "learning_accuracy",
    "stability",
)


def stream_metrics(matrix: SeedMatrix) -> dict[str, Interval | None]:
    """Return each stream metric over the tasks learned so far, None where the needed scores were not taken.

    Intervals are over the evaluation items of this one run: each task gives a Wilson, Student or recorded interval, and
    differences on the same items are paired; `combine_intervals` joins the tasks. In `forgetting` the best step is
    picked, see `highest_interval`. `stability` has none. A metric that is no mean over items (F1) enters by its
    recorded interval, unpaired.

    Forward transfer leaves warm starts out: it counts from after one over all tasks (`SeedMatrix.origin`), and up to
    before a task's own.
    """
    if matrix.last_step < 0:
        return dict.fromkeys(STREAM_METRICS)
    columns = matrix.learned
    scores = matrix.values[: matrix.last_step + 1, columns]
    first = np.array(matrix.learned_at)[columns]
    last = matrix.last_step
    earlier = [columns[i] for i in metrics.earlier_tasks(scores, first)]
    turns = [step for step in range(last + 1) if step not in matrix.warm_starts]
    turn = np.array([turns.index(step) for step in first])
    origin = matrix.baseline if matrix.origin < 0 else matrix.values[matrix.origin]
    later = [(turns[place - 1], column) for place, column in zip(turn, columns, strict=True) if place > 0]

    return {
        "average_accuracy": _measure(
            lambda: metrics.average_accuracy(scores, first), lambda: [_cell(matrix, last, c) for c in columns]
        ),
        "backward_transfer": _measure(
            lambda: metrics.backward_transfer(scores, first),
            lambda: [_change(matrix, matrix.learned_at[c], last, c) for c in earlier],
        ),
        "forward_transfer": _measure(
            lambda: metrics.forward_transfer(scores[turns], origin[columns], turn),
            lambda: [_change(matrix, matrix.origin, step, c) for step, c in later],
        ),
        "forgetting": _measure(
            lambda: metrics.forgetting(scores, first), lambda: [_highest_drop(matrix, last, c) for c in earlier]
        ),
        "learning_accuracy": _measure(
            lambda: metrics.learning_accuracy(scores, first),
            lambda: [_cell(matrix, matrix.learned_at[c], c) for c in columns],
        ),
        "stability": _measure(lambda: metrics.stability(scores, first), list),
    }


def summarise(
    matrices: Iterable[SeedMatrix], found: Mapping[int, Mapping[str, Interval | None]]
) -> dict[str, dict[str, Any]]:
    """Return each metric's mean with its interval: over seeds and items, see `seeds_interval`; over the items if there
    is one seed, over the seeds if a metric has no interval over items.

    Only complete seeds enter if there are any, so that seeds of different length are not mixed.
    """
    matrices = list(matrices)
    used = [matrix for matrix in matrices if matrix.complete] or matrices
    summary = {}
    for name in STREAM_METRICS:
        known = [found[matrix.seed][name] for matrix in used]
        values = [interval for interval in known if interval is not None]
        if not values or len(values) < len(known):
            interval, over = Interval(math.nan, math.nan, math.nan), None
        else:
            interval = seeds_interval(values, _bounds(name, used[0]))
            over = "items" if len(values) == 1 else "seeds" if math.isnan(values[0].low) else "seeds and items"
        summary[name] = {
            "mean": interval.value,
            "low": interval.low,
            "high": interval.high,
            "n_seeds": len(values),
            "over": over,
        }
    return summary


def _bounds(name: str, matrix: SeedMatrix) -> tuple[float, float]:
    """Return the range of a metric, given that of the tasks' scores."""
    return (-math.inf, math.inf) if name == "stability" else matrix.bounds(change=name in CHANGES)


def _measure(value: Callable[[], float], parts: Callable[[], list[Interval]]) -> Interval | None:
    """Return a metric with the interval of its parts, or None if the matrix lacks a score that it needs."""
    try:
        estimate = value()
    except StateError:  # the metric's own refusal of an incomplete matrix: null in the results
        return None
    if math.isnan(estimate):
        return None
    intervals = parts()
    if not intervals:
        return Interval(estimate, math.nan, math.nan)
    combined = combine_intervals(intervals)
    return Interval(estimate, combined.low, combined.high)


def _cell(matrix: SeedMatrix, step: int, column: int) -> Interval:
    value = matrix.baseline[column] if step < 0 else matrix.values[step, column]
    if step < 0:
        return Interval(float(value), math.nan, math.nan)
    return Interval(float(value), float(matrix.low[step, column]), float(matrix.high[step, column]))


def _highest_drop(matrix: SeedMatrix, last: int, column: int) -> Interval:
    """Return how much a task lost from its best step to the last, of all the steps since it was learned."""
    steps = range(matrix.learned_at[column], last)
    return highest_interval(lambda level: [_change(matrix, last, step, column, level) for step in steps], len(steps))


def _change(matrix: SeedMatrix, before: int, after: int, column: int, level: float = LEVEL) -> Interval:
    """Return how a task's score changed between two steps, paired on its items if the score is their mean."""
    task = matrix.tasks[column]
    first, second = matrix.outcomes.get((before, task)), matrix.outcomes.get((after, task))
    start, end = _cell(matrix, before, column), _cell(matrix, after, column)
    if first is None or second is None or len(first) != len(second):
        return at_level(difference_of_intervals(start, end), level)
    if abs(first.mean() - start.value) > 1e-6 or abs(second.mean() - end.value) > 1e-6:
        return at_level(difference_of_intervals(start, end), level)
    paired = paired_difference(first, second, level)
    return Interval(paired.difference, paired.low, paired.high)

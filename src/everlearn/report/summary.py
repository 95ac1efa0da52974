"""The stream metrics of a run with intervals: over the items of one seed, over the seeds where there are several."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from everlearn.errors import StateError
from everlearn.evaluation import metrics
from everlearn.evaluation.stats import (
    Interval,
    combine_intervals,
    difference_of_intervals,
    mean_interval,
    paired_difference,
)
from everlearn.report.matrix import SeedMatrix

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
    differences on the same items are paired; `combine_intervals` joins the tasks. `forgetting` takes the best step as
    given. `stability` has none. A metric that is no mean over items (F1) enters by its recorded interval, unpaired.
    """
    if matrix.last_step < 0:
        return dict.fromkeys(STREAM_METRICS)
    columns = matrix.learned
    scores = matrix.values[: matrix.last_step + 1, columns]
    first = np.array(matrix.learned_at)[columns]
    last = matrix.last_step
    earlier = [columns[i] for i in metrics.earlier_tasks(scores, first)]
    later = [column for column in columns if matrix.learned_at[column] > 0]

    def best(column: int) -> int:
        return metrics.best_step(matrix.values[: last + 1], np.array(matrix.learned_at), column)

    return {
        "average_accuracy": _measure(
            lambda: metrics.average_accuracy(scores, first), lambda: [_cell(matrix, last, c) for c in columns]
        ),
        "backward_transfer": _measure(
            lambda: metrics.backward_transfer(scores, first),
            lambda: [_change(matrix, matrix.learned_at[c], last, c) for c in earlier],
        ),
        "forward_transfer": _measure(
            lambda: metrics.forward_transfer(scores, matrix.baseline[columns], first),
            lambda: [_change(matrix, -1, matrix.learned_at[c] - 1, c) for c in later],
        ),
        "forgetting": _measure(
            lambda: metrics.forgetting(scores, first), lambda: [_change(matrix, last, best(c), c) for c in earlier]
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
    """Return each metric's mean with its interval: Student's over the seeds, or over the items if there is one seed.

    Only complete seeds enter if there are any, so that seeds of different length are not mixed.
    """
    matrices = list(matrices)
    used = [matrix.seed for matrix in matrices if matrix.complete] or [matrix.seed for matrix in matrices]
    summary = {}
    for name in STREAM_METRICS:
        known = [found[seed][name] for seed in used]
        values = [interval for interval in known if interval is not None]
        if not values or len(values) < len(known):
            interval, over = Interval(math.nan, math.nan, math.nan), None
        elif len(values) == 1:
            interval, over = values[0], "items"
        else:
            interval, over = mean_interval([value.value for value in values]), "seeds"
        summary[name] = {
            "mean": interval.value,
            "low": interval.low,
            "high": interval.high,
            "n_seeds": len(values),
            "over": over,
        }
    return summary


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


def _change(matrix: SeedMatrix, before: int, after: int, column: int) -> Interval:
    """Return how a task's score changed between two steps, paired on its items if the score is their mean."""
    task = matrix.tasks[column]
    first, second = matrix.outcomes.get((before, task)), matrix.outcomes.get((after, task))
    start, end = _cell(matrix, before, column), _cell(matrix, after, column)
    if first is None or second is None or len(first) != len(second):
        return difference_of_intervals(start, end)
    if abs(first.mean() - start.value) > 1e-6 or abs(second.mean() - end.value) > 1e-6:
        return difference_of_intervals(start, end)
    paired = paired_difference(first, second)
    return Interval(paired.difference, paired.low, paired.high)

"""One seed's scores as a matrix: rows are learning steps, columns are tasks in the order in which they first appear."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from everlearn.evaluation.stats import range_of
from everlearn.report.records import WARM_START, Run

NEVER = -1  # learned_at of a task that is only scored


@dataclass(frozen=True)
class SeedMatrix:
    """What one seed of a run measured. NaN where nothing was measured.

    `values`, `low`, `high` are [n_steps, n_tasks], `n` the item counts; `baseline` [n_tasks] is before any training.
    `learned_at[i]` is the first step that taught task i, `NEVER` if none did. `last_step` is the last step after which
    every task learned so far was scored, -1 if there is none. `outcomes[step, task]` are the per-item outcomes,
    `metric_names[task]` says what the score is. `warm_starts` are the steps that teach no task, but lay a ground.
    """

    seed: int
    schedule: tuple[str, ...]
    tasks: tuple[str, ...]
    learned_at: tuple[int, ...]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    baseline: np.ndarray
    outcomes: Mapping[tuple[int, str], np.ndarray]
    metric_names: Mapping[str, str]
    last_step: int
    warm_starts: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the whole schedule was learned and scored."""
        return self.last_step == len(self.schedule) - 1

    @property
    def learned(self) -> np.ndarray:
        """The columns of the tasks learned up to `last_step`."""
        first = np.array(self.learned_at)
        return np.flatnonzero((first != NEVER) & (first <= self.last_step))

    @property
    def origin(self) -> int:
        """The step before the first that teaches a task: -1, or that of a warm start over all tasks."""
        return 0 if 0 in self.warm_starts and self.schedule[0] == WARM_START else -1

    def bounds(self, *, change: bool = False) -> tuple[float, float]:
        """Return the range of a mean over the learned tasks' scores, or over their changes."""
        ranges = [range_of(self.metric_names[self.tasks[column]], change=change) for column in self.learned]
        low, high = np.mean(ranges, axis=0)
        return float(low), float(high)


def build_matrix(run: Run, seed: int) -> SeedMatrix:
    """Collect one seed's scores.

    If no step is named after a scored task, each step taught all the tasks scored after it: that is how joint training,
    one step over everything, appears. A task that has no evaluation items, by the log's data, is a step alone.
    """
    schedule = run.schedule[seed]
    scores = {(result.after, result.score.task): result.score for result in run.scores if result.seed == seed}
    scored = {step: [task for at, task in scores if at == step] for step in range(-1, len(schedule))}
    joint = not {task for _, task in scores} & set(schedule)
    together = {step for step, name in enumerate(schedule) if joint and scored[step] and not _lays_ground(name)}
    unmeasured = {record["task"] for record in run.data if record.get("n", {}).get("evaluation") == 0}
    named = [name for step, name in enumerate(schedule) if step not in together and name not in unmeasured]
    tasks = tuple(dict.fromkeys([*named, *(task for _, task in scores)]))
    learned_at = tuple(_first_step(task, schedule, scored, together) for task in tasks)
    values, low, high, n = (np.full((len(schedule), len(tasks)), np.nan) for _ in range(4))
    baseline = np.full(len(tasks), np.nan)
    for (step, task), score in scores.items():
        column = tasks.index(task)
        if step < 0:
            baseline[column] = score.value
            continue
        values[step, column], n[step, column] = score.value, score.n
        low[step, column], high[step, column] = score.low, score.high
    outcomes = {cell: np.array(score.outcomes) for cell, score in scores.items() if score.outcomes}
    metric_names = {task: score.metric for (_, task), score in scores.items()}
    last = _last_step(values, learned_at)
    warm = tuple(step for step, name in enumerate(schedule) if _lays_ground(name) and name not in tasks)
    return SeedMatrix(
        seed, schedule, tasks, learned_at, values, low, high, n, baseline, outcomes, metric_names, last, warm
    )  # fmt: skip


def _lays_ground(name: str) -> bool:
    """Whether a step is called as warm starts are."""
    return name.startswith(WARM_START)


def _first_step(task: str, schedule: tuple[str, ...], scored: Mapping[int, list[str]], together: set[int]) -> int:
    for step, name in enumerate(schedule):
        if name == task or (step in together and task in scored[step]):
            return step
    return NEVER


def _last_step(values: np.ndarray, learned_at: tuple[int, ...]) -> int:
    first = np.array(learned_at)
    for step in range(len(values) - 1, -1, -1):
        seen = values[step, (first != NEVER) & (first <= step)]
        if seen.size and not np.isnan(seen).any():
            return step
    return -1

"""A run as the report shows it, and what is averaged over its seeds: scores, cost, plasticity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.errors import ConfigError, StateError, describe
from everlearn.evaluation import metrics
from everlearn.report.matrix import SeedMatrix, build_matrix
from everlearn.report.records import Run, read_run
from everlearn.report.results import build_results


@dataclass(frozen=True)
class RunView:
    """A run as the report shows it: its name there, its log, its matrices and its results."""

    name: str
    run: Run
    matrices: tuple[SeedMatrix, ...]
    results: Mapping[str, Any]

    @property
    def started(self) -> tuple[SeedMatrix, ...]:
        """The seeds to show: the complete ones, or those with a score if none is complete."""
        complete = tuple(matrix for matrix in self.matrices if matrix.complete)
        return complete or tuple(matrix for matrix in self.matrices if matrix.last_step >= 0)

    @property
    def seeds(self) -> list[int]:
        """The numbers of the seeds to show."""
        return [matrix.seed for matrix in self.started]

    @property
    def measures(self) -> set[str]:
        """The metrics that fill the matrices: accuracy, token_log_likelihood, ..."""
        return {name for matrix in self.started for name in matrix.metric_names.values()}

    @property
    def same_order(self) -> bool:
        """Whether all seeds learn the tasks in one order."""
        return len({(matrix.tasks, matrix.schedule) for matrix in self.started}) <= 1

    @property
    def is_joint(self) -> bool:
        """Whether this run trains on all tasks at once, by its recipe's strategies or its name."""
        strategies = self.run.recipe.get("strategies")
        entries = strategies if isinstance(strategies, list) else [strategies]
        named = [entry.get("name") if isinstance(entry, Mapping) else entry for entry in entries]
        return "joint" in named or self.name == "joint"


def load_views(runs: Mapping[str, Path]) -> list[RunView]:
    """Read the run folders, names to folders.

    Raises:
        ConfigError: if no run is named.
        StateError: if a log is missing or damaged.
    """
    if not runs:
        raise ConfigError(describe("report", "no run is named", dict(runs), "Name at least one run folder"))
    views = []
    for name, folder in runs.items():
        run = read_run(Path(folder))
        matrices = tuple(build_matrix(run, seed) for seed in run.schedule)
        views.append(RunView(str(name), run, matrices, build_results(run)))
    return views


def joint_scores(views: Sequence[RunView]) -> dict[str, float]:
    """Return each task's final score under joint training, averaged over its seeds; empty if no run is joint."""
    for view in views:
        if view.is_joint and view.started:
            found: dict[str, list[float]] = {}
            for matrix in view.started:
                for column in matrix.learned:
                    found.setdefault(matrix.tasks[column], []).append(matrix.values[matrix.last_step, column])
            return {task: float(np.mean(values)) for task, values in found.items()}
    return {}


def plasticity_of(view: RunView, joint: Mapping[str, float]) -> float | None:
    """Return a run's plasticity against joint training, averaged over its seeds; None where it is not defined."""
    values = []
    for matrix in view.started:
        columns = matrix.learned
        reference = [joint.get(matrix.tasks[column], np.nan) for column in columns]
        first = np.array(matrix.learned_at)[columns]
        try:
            values.append(metrics.plasticity(matrix.values[: matrix.last_step + 1, columns], reference, first))
        except StateError:  # the metric's own refusal: a score that the ratio needs is missing or not above 0
            return None
    return float(np.mean(values)) if values else None


def axis_names(view: RunView) -> tuple[list[str], list[str]]:
    """Return the names of a run's columns and rows: tasks, or places in the order if the seeds' orders differ."""
    matrix = view.started[0]
    if view.same_order:
        return list(matrix.tasks), list(matrix.schedule)
    return [f"task {i + 1}" for i in range(len(matrix.tasks))], [f"step {i + 1}" for i in range(len(matrix.schedule))]


def mean_matrix(view: RunView) -> np.ndarray:
    """Return a run's scores [n_steps, n_tasks], averaged over the seeds in which a cell was measured."""
    return mean_over([matrix.values for matrix in view.started])


def mean_over(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of arrays, NaN only where all are; arrays of another shape than the first stay out."""
    stacked = np.stack([array for array in arrays if array.shape == arrays[0].shape])
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def mean_cost(view: RunView) -> dict[str, float]:
    """Return the run's cost per seed, averaged over the seeds shown."""
    totals = [entry["cost"]["total"] for entry in _shown(view)]
    names = ("train_s", "eval_s", "n_steps", "n_tokens", "peak_memory_bytes")
    return {name: float(np.mean([total[name] for total in totals])) if totals else 0.0 for name in names}


def kept_bytes(view: RunView) -> dict[str, float]:
    """Return the bytes that each strategy keeps at the end, averaged over the seeds shown."""
    kept = [entry["cost"]["total"]["strategy_bytes"] for entry in _shown(view)]
    names = dict.fromkeys(name for one in kept for name in one)
    return {name: float(np.mean([one.get(name, 0) for one in kept])) for name in names}


def owned_shares(view: RunView) -> dict[str, np.ndarray]:
    """Return, for each strategy that tells which share of the model a task owns, {strategy: shares [n_tasks + 1]} at
    the end, in the order of `axis_names`, averaged over the seeds shown; the last share is free.
    """
    found: dict[str, list[np.ndarray]] = {}
    for matrix, entry in zip(view.started, _shown(view), strict=True):
        for name, facts in entry["cost"]["total"]["strategy_facts"].items():
            shares, free = facts.get("shares"), facts.get("free")
            if isinstance(shares, Mapping) and all(isinstance(s, int | float) for s in (*shares.values(), free)):
                found.setdefault(name, []).append(np.array([*(shares.get(t, 0.0) for t in matrix.tasks), free], float))
    return {name: mean_over(arrays) for name, arrays in found.items()}


def strategy_curves(view: RunView) -> dict[str, list[list[Mapping[str, Any] | None]]]:
    """Return, for each strategy that tells how something went over a task's optimizer steps, {strategy: curves
    [n_seeds][n_steps of the schedule]}; None where it told none. See `curve` in docs/results-schema.md.
    """
    found: dict[str, list[list[Mapping[str, Any] | None]]] = {}
    for number, entry in enumerate(_shown(view)):
        for step in entry["cost"]["steps"]:
            for name, facts in step["strategy_facts"].items():
                curve = facts.get("curve")
                if isinstance(curve, Mapping) and curve.get("step"):
                    seeds = found.setdefault(name, [[None] * len(entry["schedule"]) for _ in view.started])
                    seeds[number][step["after"]] = curve
    return found


def _shown(view: RunView) -> list[Mapping]:
    seeds = {matrix.seed for matrix in view.started}
    return [entry for entry in view.results["seeds"] if entry["seed"] in seeds]

"""What finished cells showed, alike for every kind of run: score, change, items, curve, cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.evaluation.metrics import average_over_seen
from everlearn.evaluation.stats import SHARE, Interval, seeds_interval
from everlearn.kind import read_results
from everlearn.report.matrix import NEVER, SeedMatrix, build_matrix
from everlearn.report.online_results import EVALUATIONS, read_online_run
from everlearn.report.records import RESULTS_LOG, Run, read_run
from everlearn.report.results import build_results
from everlearn.report.views import RunView, kept_bytes, mean_cost

UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Entry:
    """All finished seeds of one place of the grid.

    Attributes:
        group, variant: where it is compared with others, and what it is there.
        seeds: in the order of the grid. score: mean at the end, with its interval over seeds and items.
        change: backward transfer; NaN where there is none.
        by_seed: the score of each seed. outcomes: of each seed, by task the items' at the end; tasks that are measured
            by something else than most are left out, for items are pooled.
        curve: of each seed, the mean score of what was learned so far, after each step.
        train_s, memory_bytes, kept_bytes: of a seed on average; NaN where it isn't known.
        view: the seeds as one run for the report; None where the kind of run has a report of its own.
    """

    group: str
    variant: str
    seeds: Sequence[int]
    score: Interval
    by_seed: Sequence[float]
    change: Interval = UNKNOWN
    outcomes: Sequence[Mapping[str, np.ndarray]] = ()
    curve: Sequence[Sequence[float]] = ()
    train_s: float = math.nan
    memory_bytes: float = math.nan
    kept_bytes: float = math.nan
    view: RunView | None = field(default=None, repr=False)


def read_entry(group: str, variant: str, folders: Mapping[int, Path]) -> Entry:
    """Return what the finished runs of one place of a grid showed, {seed: folder}.

    Raises:
        StateError: if a log is damaged.
    """
    first = next(iter(folders.values()))
    if (first / RESULTS_LOG).exists():
        return _of_tasks(group, variant, folders)
    if (first / EVALUATIONS).exists():
        return _of_online(group, variant, folders)
    values = [score_of(folder) for folder in folders.values()]
    scores = [Interval(value, math.nan, math.nan) for value in values]
    return Entry(group, variant, list(folders), seeds_interval(scores) if None not in values else UNKNOWN, values)


def score_of(folder: Path) -> float | None:
    """Return the score that a finished run came to; None where its kind tells none.

    Average accuracy at the end; of an online run, on the held-out problems at the end; of meta-learning, from the
    learned start after the most steps.
    """
    results = read_results(folder)
    if "final_accuracy" in results:
        return results["final_accuracy"]["value"]
    summary = results.get("summary", {})
    if "average_accuracy" in summary:
        return summary["average_accuracy"]["mean"]
    starts = summary.get("scores", {})
    curve = starts.get("meta") or (list(starts.values()) or [{}])[-1]
    return list(curve.values())[-1]["mean"] if curve else None


def joined(runs: Sequence[Run]) -> Run:
    """Return runs of one recipe, a seed or more each, as one run over all these seeds."""
    schedule = {seed: names for run in runs for seed, names in run.schedule.items()}
    recipe = {**runs[0].recipe, "seed": None, "seeds": list(schedule)}
    scores, costs, abilities = (
        tuple(line for run in runs for line in vars(run)[name]) for name in ("scores", "costs", "abilities")
    )
    return replace(runs[0], recipe=recipe, schedule=schedule, scores=scores, costs=costs, abilities=abilities)


def view_of(name: str, folders: Sequence[Path]) -> RunView:
    """Return finished runs of one recipe, a seed each, as the report shows one run over all of them."""
    run = joined([read_run(folder) for folder in folders])
    return RunView(name, run, tuple(build_matrix(run, seed) for seed in run.schedule), build_results(run))


def _of_tasks(group: str, variant: str, folders: Mapping[int, Path]) -> Entry:
    view = view_of(variant, list(folders.values()))
    summary, cost = view.results["summary"], mean_cost(view)
    return Entry(
        group, variant, list(folders), _interval(summary["average_accuracy"]),
        [entry["metrics"]["average_accuracy"] for entry in view.results["seeds"]],
        _interval(summary["backward_transfer"]), [_final_outcomes(matrix) for matrix in view.matrices],
        [_seen(matrix) for matrix in view.matrices], cost["train_s"], cost["peak_memory_bytes"],
        _worth_telling(sum(kept_bytes(view).values())), view,
    )  # fmt: skip


def _of_online(group: str, variant: str, folders: Mapping[int, Path]) -> Entry:
    results = [read_results(folder) for folder in folders.values()]
    ends = [
        run.evaluations[run.seeds[0]][-1]["outcomes"]
        for run in (read_online_run(folder) for folder in folders.values())
    ]
    scores = [_interval(one["final_accuracy"], "value") for one in results]
    changes = [_interval(one["backward_transfer"], "value") for one in results]
    known = not any(math.isnan(change.value) for change in changes)
    seeds = [one["seeds"][0] for one in results]
    return Entry(
        group, variant, list(folders), seeds_interval(scores, SHARE), [score.value for score in scores],
        seeds_interval(changes, (-1.0, 1.0)) if known else UNKNOWN,
        [{"held out": np.array(end, float)} for end in ends],
        [[point["value"] for point in one["curve"]] for one in results],
        float(np.mean([one["episode_s"] + one["task_s"] for one in seeds])),
        kept_bytes=_worth_telling(float(np.mean([sum(one["strategy_bytes"].values()) for one in seeds]))),
    )  # fmt: skip


def _worth_telling(n_bytes: float) -> float:
    """Return 0 for what is below 1 KiB: names and counters that every method keeps."""
    return n_bytes if n_bytes >= 1024 else 0.0


def _interval(entry: Mapping[str, Any] | None, value: str = "mean") -> Interval:
    if entry is None:
        return UNKNOWN
    return Interval(*(math.nan if entry[name] is None else entry[name] for name in (value, "low", "high")))


def _final_outcomes(matrix: SeedMatrix) -> dict[str, np.ndarray]:
    measures = [matrix.metric_names[task] for task in matrix.tasks if task in matrix.metric_names]
    most = max(dict.fromkeys(measures), key=measures.count, default="")
    at_end = {task: found for (step, task), found in matrix.outcomes.items() if step == matrix.last_step}
    return {task: found for task, found in at_end.items() if matrix.metric_names[task] == most}


def _seen(matrix: SeedMatrix) -> list[float]:
    taught = np.flatnonzero(np.array(matrix.learned_at) != NEVER)
    return average_over_seen(matrix.values[:, taught], np.array(matrix.learned_at)[taught]).tolist()

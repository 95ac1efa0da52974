"""What a trainer has measured: the accuracy matrix, what each task took, and what can be said of both."""

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from everlearn.errors import ConfigError, describe
from everlearn.evaluation.gain import NOTHING, WORSE, is_known, verdict_on
from everlearn.evaluation.stats import Interval
from everlearn.report.items import keep_items
from everlearn.report.matrix import SeedMatrix, build_matrix
from everlearn.report.records import RESULTS_LOG, SCHEMA, StepCost
from everlearn.report.records import Run as Log
from everlearn.report.results import RESULTS, build_results
from everlearn.report.summary import stream_metrics
from everlearn.report.views import RunView
from everlearn.state import make_folder, write_file, write_json
from everlearn.types import Cost, Score, Task, TaskResult

METRICS = ("average_accuracy", "backward_transfer", "forgetting", "learning_accuracy")


@dataclass(frozen=True)
class TaskScores(Mapping):
    """Scores now, by task; and right after each task was learned, so that what was lost shows. Prints as a table."""

    now: dict[str, Score]
    learned: dict[str, Score]

    def __getitem__(self, task: str) -> Score:
        return self.now[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)

    def average(self) -> float:
        """Return the mean of the scores over tasks."""
        return sum(score.value for score in self.now.values()) / len(self.now)

    def __str__(self) -> str:
        table = Table("task", "metric", "when learned", "now", "95% interval", "n")
        for name, score in self.now.items():
            interval = "–" if score.low is None else f"{score.low:.3f} to {score.high:.3f}"
            cells = (score.metric, f"{self.learned[name].value:.3f}", f"{score.value:.3f}", interval, str(score.n))
            table.add_row(name, *cells)
        return _as_text(table)


@dataclass(frozen=True)
class TrainerMetrics(Mapping):
    """What sums up the matrix: each metric with its 95% interval over the evaluation items, None where a score that it
    needs was not taken. Prints as a table."""  # fmt: skip

    found: dict[str, Interval | None]

    def __getitem__(self, metric: str) -> Interval | None:
        return self.found[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __str__(self) -> str:
        table = Table("metric", "value", "95% interval")
        for name, interval in self.found.items():
            if interval is None:
                table.add_row(name, "–", "–")
                continue
            bounds = "–" if math.isnan(interval.low) else f"{interval.low:.3f} to {interval.high:.3f}"
            table.add_row(name, f"{interval.value:.3f}", bounds)
        return _as_text(table)


@dataclass(frozen=True)
class Evaluation(Mapping):
    """Scores of all tasks by name, and the metrics of the stream by theirs; prints as two tables."""

    scores: TaskScores
    metrics: TrainerMetrics

    def __getitem__(self, name: str) -> Score | Interval | None:
        return self.scores[name] if name in self.scores else self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self.scores, *self.metrics))

    def __len__(self) -> int:
        return len(self.scores) + len(self.metrics)

    def __str__(self) -> str:
        return f"{self.scores}\n{self.metrics}"


@dataclass
class Measured:
    """Scores by (number of the learning step, task), and each step's cost. A later score of a cell takes its place.

    learned: each task's score right after it was learned (last).
    n_items: evaluation items of each task.
    """

    scores: dict[tuple[int, str], Score] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)
    learned: dict[str, Score] = field(default_factory=dict)
    n_items: dict[str, int] = field(default_factory=dict)

    def add_task(self, task: Task, cost: Cost) -> None:
        """Note that a task was learned."""
        self.costs.append(cost)
        self.n_items[task.name] = len(task.evaluation)

    def add_score(self, score: Score) -> None:
        """Note how the model does on a task after the newest step."""
        self.scores[len(self.costs) - 1, score.task] = score

    def log(self, steps: tuple[str, ...], seed: int, settings: Mapping[str, Any], env: Mapping[str, Any]) -> Log:
        """Return what was measured as the log of a run. steps: the task of each learning step, in order."""
        results = (
            TaskResult(seed, after, steps[after] if after >= 0 else None, score)
            for (after, _), score in self.scores.items()
        )
        costs = (StepCost(seed, after, steps[after], cost) for after, cost in enumerate(self.costs))
        data = tuple({"task": task, "n": {"evaluation": n}} for task, n in self.n_items.items())
        return Log(Path(), settings, env, {seed: steps}, tuple(results), tuple(costs), data)

    def state(self) -> dict[str, Any]:
        """Return it as tensors and JSON."""
        return {
            "scores": [[after, _packed(score)] for (after, _), score in self.scores.items()],
            "costs": [asdict(cost) for cost in self.costs],
            "learned": [_packed(score) for score in self.learned.values()],
            "n_items": dict(self.n_items),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Measured":
        """Return what `state` was taken of."""
        scores = {(after, score["task"]): _unpacked(score) for after, score in state["scores"]}
        learned = {score["task"]: _unpacked(score) for score in state["learned"]}
        return cls(scores, [Cost(**cost) for cost in state["costs"]], learned, dict(state["n_items"]))


def told_of_gain(score: Score, before: Score, after: Score, cost: Cost, *, known: bool) -> str | None:
    """Return what is to be told where the right answers to a task's items are no likelier than before its training.

    Args:
        score: of the task now. before, after: log-likelihoods. known: the task was learned before.
    """
    if verdict_on(before, after, before, after, known=known) not in (NOTHING, WORSE) or is_known(score):
        return None
    return (
        f"Task {score.task!r}: nothing was learned. The log-likelihood of the right answers to its evaluation rows was "
        f"{before.value:.3g} nats each, and is {after.value:.3g}, after {cost.n_epochs} epochs at learning rate "
        f"{cost.learning_rate:g}. Try another rate, more epochs, or more rows."
    )


def metrics_of(log: Log) -> TrainerMetrics:
    """Return the metrics of a trainer's log; forward transfer too, where tasks were scored before any was learned."""
    matrix = _matrix(log)
    found = stream_metrics(matrix)
    names = METRICS if np.isnan(matrix.baseline).all() else (*METRICS[:2], "forward_transfer", *METRICS[2:])
    return TrainerMetrics({name: found[name] for name in names})


def draw(log: Log, name: str, tasks: Iterable[Task], out: Path) -> Path:
    """Write a trainer's log into the folder `out` as a run's results, and their report; return its page.

    tasks: those whose items and answers are shown.

    Raises:
        ConfigError: if the folder can't be made, or holds a run.
    """
    from everlearn.report.html import write_pages  # here, since drawing imports matplotlib

    if (out / "recipe.yaml").exists():
        raise ConfigError(describe("plot", "the folder holds a run", str(out), "Name another folder"))
    make_folder(out)
    shutil.rmtree(out / "items", ignore_errors=True)
    log, (seed,) = replace(log, folder=out), log.schedule
    keep_items(out, seed, tasks)
    results = build_results(log)
    write_file(out / RESULTS_LOG, "".join(f"{json.dumps(line)}\n" for line in _lines(log)).encode())
    write_json(out / RESULTS, results)
    write_pages([RunView(name, log, (_matrix(log),), results)], out)
    return out / "report.html"


def _lines(log: Log) -> Iterator[dict[str, Any]]:
    """Yield the lines of results.jsonl (docs/results-schema.md)."""
    tasks = {str(seed): list(steps) for seed, steps in log.schedule.items()}
    yield {"type": "header", "schema": SCHEMA, "recipe": log.recipe, "env": log.env, "tasks": tasks}
    for record in log.data:
        yield {"type": "data", **record}
    for one in log.scores:
        yield {"type": "score", "seed": one.seed, "after": one.after, "trained": one.trained, **asdict(one.score)}
    for one in log.costs:
        yield {"type": "cost", "seed": one.seed, "after": one.after, "trained": one.trained, **asdict(one.cost)}


def _matrix(log: Log) -> SeedMatrix:
    (seed,) = log.schedule
    return build_matrix(log, seed)


def _packed(score: Score) -> dict[str, Any]:
    return {**asdict(score), "outcomes": torch.tensor(score.outcomes, dtype=torch.float64)}


def _unpacked(state: Mapping[str, Any]) -> Score:
    return Score(**{**state, "outcomes": tuple(state["outcomes"].tolist()), "answers": tuple(state["answers"])})


def _as_text(table: Table) -> str:
    console = Console(width=100, color_system=None, force_jupyter=False)  # else a notebook shows an empty output too
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()

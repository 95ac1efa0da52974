"""Rows that come without a task's name: each is answered by the expert whose task it is nearest to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from everlearn.evaluation.predict import predict
from everlearn.evaluation.stats import outcome_interval
from everlearn.experts.library import Library
from everlearn.experts.signals import Signals, Space
from everlearn.streams.sampling import select_rows
from everlearn.types import Row, Rows, Score, Task

if TYPE_CHECKING:
    from everlearn.way import Run

Nearest = Callable[["Run", Rows], list[str]]  # as `Experts.nearest_tasks`


@dataclass(frozen=True)
class ByRow:
    """What came of a task's rows that were answered one by one.

    routed: without being told whose they are. told: with it. right: share of the rows that the task's own expert
    answered.
    """

    routed: Score
    told: Score
    right: float


def nearest_tasks(library: Library, signals: Signals, rows: Rows) -> list[str]:
    """Return of each row the task, of those that a library's experts have learned, whose text is nearest.

    Cost: a forward pass of the base over what each row asks.
    """
    if not len(rows):
        return []
    known = library.prototypes()
    space = Space.of(known.vectors, signals.blocks, {"text": 1.0, "gradient": 0.0, "context": 0.0})
    similarities = space.joined(signals.of_rows(rows)) @ space.joined(known.vectors).T
    return [known.tasks[number] for number in similarities.argmax(1).tolist()]


def predict_rows(run: "Run", nearest: Nearest, rows: Sequence[Row]) -> list[Any]:
    """Return what the model answers to rows of any of the tasks that it has learned, as `predict` returns it."""
    found: dict[int, Any] = {}
    for name, numbers in _by_task(nearest(run, rows)).items():
        found |= zip(numbers, predict(run, run.tasks[name], select_rows(rows, numbers)), strict=True)
    return [found[number] for number in range(len(rows))]


def score_rows(run: "Run", nearest: Nearest, tasks: Mapping[str, Task], experts: Mapping[str, int]) -> dict[str, ByRow]:
    """Return how well tasks' evaluation rows are answered without their names, beside the same with them.

    What is answered with the head of a task with other labels is wrong. The score is the mean of the items' outcomes.

    Args:
        experts: {task: its expert}.
    """
    return {name: _by_row(run, task, nearest(run, task.evaluation), experts) for name, task in tasks.items()}


def _by_row(run: "Run", task: Task, found: Sequence[str], experts: Mapping[str, int]) -> ByRow:
    told, outcomes = run.score(task), [0.0] * len(found)
    for name, numbers in _by_task(found).items():
        if run.tasks[name].labels != task.labels:
            continue
        part = replace(
            task, name=name, evaluation=select_rows(task.evaluation, numbers), max_new_tokens=_room(run, task)
        )
        for number, outcome in zip(numbers, run.score(part).outcomes, strict=True):
            outcomes[number] = outcome
    told = _as_mean(told, told.outcomes)
    right = sum(experts.get(name) == experts.get(task.name) for name in found) / len(found)
    return ByRow(_as_mean(told, outcomes), told, right)


def _as_mean(score: Score, outcomes: Sequence[float]) -> Score:
    found = outcome_interval(outcomes)
    ends = {"value": found.value, "low": found.low, "high": found.high}
    return replace(score, **ends, outcomes=tuple(outcomes), metrics={}, answers=())


def _room(run: "Run", task: Task) -> int | None:
    """Return how long an answer may be: that depends on the task's rows, not on those that come together."""
    return run.model.objective.answer_room(task) if task.kind == "prompt" else task.max_new_tokens


def _by_task(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        found.setdefault(name, []).append(number)
    return found

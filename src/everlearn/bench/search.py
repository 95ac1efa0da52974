"""Hyperparameters chosen before a grid runs: on the first tasks of a stream, by validation rows, never by test rows."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from everlearn.config import SCHEDULE_KEYS, build
from everlearn.errors import ConfigError, check_number, describe
from everlearn.streams.loading import TaskOptions
from everlearn.streams.sampling import groups_of, select_rows, subset
from everlearn.streams.schedule import apply_schedule
from everlearn.types import Stream, Task

VALIDATION_SHARE = 0.2  # of the training rows, where a task has no validation rows


@dataclass(frozen=True)
class Search:
    """Which hyperparameters are tried, and on what.

    space: path in the recipe -> the values to try, `{learner.learning_rate: [1e-4, 1e-3]}`; all combinations are.
    methods: the same for a method alone, `{ewc: {strategies.0.strength: [10, 100]}}`, beside those of `space`.
    tasks: how many of the first tasks the trials learn. seeds: of the trials; best others than the grid's.
    """

    space: dict[str, list[Any]] = field(default_factory=dict)
    methods: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    tasks: int = 3
    seeds: list[int] = field(default_factory=lambda: [1000])

    def __post_init__(self) -> None:
        check_number("search.tasks", self.tasks, low=1)
        if not self.space and not self.methods:
            way_out = "Write space: {learner.learning_rate: [1e-4, 1e-3]}"
            raise ConfigError(describe("search", "tries nothing", {}, way_out))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(describe("search.seeds", "are empty or repeat", self.seeds, "Give each once"))
        for where, space in (("space", self.space), *((f"methods.{name}", own) for name, own in self.methods.items())):
            for path, values in space.items():
                if not values or len({str(value) for value in values}) < len(values):
                    what, way_out = "is empty or repeats", "Give each value once"
                    raise ConfigError(describe(f"search.{where}.{path}", what, values, way_out))

    def candidates(self, method: str) -> list[dict[str, Any]]:
        """Return what is tried of a method, {path: value}; a single one means that there is nothing to choose."""
        space = {**self.space, **self.methods.get(method, {})}
        return [dict(zip(space, values, strict=True)) for values in product(*space.values())]


@dataclass(frozen=True)
class FirstTasks:
    """Stream: the first tasks of another, measured on their validation rows; evaluation rows are left out.

    Args:
        of: the stream, its schedule's keys included.
        n_tasks: how many of its tasks, in the order in which they are learned.
        seed: decides what the schedule draws, and which rows are held out where a task has no validation rows.
    """

    of: dict[str, Any]
    n_tasks: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("stream.n_tasks", self.n_tasks, low=1)
        self._inner()

    def build(self) -> Stream:
        """Return the tasks. Where one has no validation rows, a fifth of its training rows are held out."""
        schedule = {key: value for key, value in self.of.items() if key in SCHEDULE_KEYS}
        whole = apply_schedule(self._inner().build(), **schedule, seed=self.seed).stream
        tasks = tuple(self._measured_apart(task) for task in whole.tasks[: self.n_tasks])
        return Stream(whole.name, tasks)

    def _inner(self) -> Any:
        options = {key: value for key, value in self.of.items() if key not in SCHEDULE_KEYS}
        stream = build("stream", options, "stream", also=SCHEDULE_KEYS)
        return replace(stream, wants_validation=True) if isinstance(stream, TaskOptions) else stream

    def _measured_apart(self, task: Task) -> Task:
        if task.validation is not None and len(task.validation):
            return replace(task, evaluation=task.validation, validation=None)
        n_held = max(1, round(VALIDATION_SHARE * len(task.train)))
        if len(task.train) - n_held < 1:
            way_out = "Give it more rows, or search on other tasks"
            raise ConfigError(describe(f"task {task.name!r}", "has no rows to validate on", len(task.train), way_out))
        held = set(subset(len(task.train), n_held, groups_of(task, task.train), self.seed, "search", task.name))
        kept = [i for i in range(len(task.train)) if i not in held]
        return replace(
            task, train=select_rows(task.train, kept), evaluation=select_rows(task.train, sorted(held))
        )  # fmt: skip


def trial_content(content: Mapping[str, Any], n_tasks: int, seed: int) -> dict[str, Any]:
    """Return the recipe of a trial: that of a cell, on the first tasks, measured on validation rows.

    Raises:
        ConfigError: if the recipe has no stream of tasks.
    """
    if "stream" not in content:
        way_out = "Search with recipes that have stream:"
        raise ConfigError(describe("search", "needs tasks to validate on", sorted(content), way_out))
    stream = {"name": "everlearn.bench.search:FirstTasks", "of": deepcopy(content["stream"]), "n_tasks": n_tasks}
    return {**deepcopy(dict(content)), "stream": {**stream, "seed": seed}, "seeds": [seed]}


def trial_settings(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return a candidate's values by their paths in a trial's recipe, whose stream stands within another."""
    return {
        f"stream.of.{path.removeprefix('stream.')}" if path.startswith("stream.") else path: value
        for path, value in candidate.items()
    }


def best(scores: Sequence[float | None]) -> int:
    """Return the place of the highest score, the first of equals; None is a trial that failed.

    Raises:
        ConfigError: if all failed.
    """
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    if not known:
        raise ConfigError(describe("search", "every trial failed", list(scores), "See the trials' errors above"))
    return -max(known)[1]

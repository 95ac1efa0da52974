"""The loader of all named streams: which tasks in which order, rows kept apart, sizes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from everlearn.errors import ConfigError, StreamError, check_choice, describe, nearest
from everlearn.streams.apart import digests_of
from everlearn.streams.domains.loading import load_entry
from everlearn.streams.domains.places import Missing, find_data
from everlearn.streams.domains.table import Entry
from everlearn.streams.sampling import groups_of, select_rows, subset
from everlearn.types import Rows, Stream, Task


@dataclass(frozen=True, kw_only=True)
class DomainStream:
    """A published sequence of tasks. Each named stream is a table of them over this class.

    Args:
        folder: holds a folder for each task, with train and test files (JSON Lines, JSON, CSV, Parquet), or copies of
            the hub's data sets under their ids; `~` is the home folder. None: the hub.
        order: which published order, by its name, such as 1; or a list of tasks. None: all tasks as they are listed.
        train_rows, test_rows: rows of a task, at most, each class with its share; the same whatever the run's seed.
        skip_missing: leave out tasks whose rows the folder lacks, with a note, instead of refusing the stream.
        on_bad_row: "skip" leaves out rows that can't be used (published sets have rows without a label) and warns,
            "error" refuses them.
        validation_fraction: share of the training rows held out for validation where a task has none of its own.
        data_seed: decides which rows are taken where sizes are given.

    A training row that is an evaluation item, of its own task or another, is left out of training; a note tells how
    many.

    Raises:
        ConfigError: if a field is out of range, or names an order or task that the stream hasn't.
    """

    entries: ClassVar[Mapping[str, Entry]] = {}
    orders: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    folder: str | None = None
    order: int | str | list[str] | None = None
    train_rows: int | None = None
    test_rows: int | None = None
    skip_missing: bool = False
    on_bad_row: str = "skip"
    validation_fraction: float = 0.0
    data_seed: int = 0

    def __post_init__(self) -> None:
        self.tasks()
        for name in ("train_rows", "test_rows"):
            value = vars(self)[name]
            if value is not None and value < 1:
                raise ConfigError(describe(f"stream.{name}", "is too small", value, "Allowed: 1 or more"))
        check_choice("stream.on_bad_row", self.on_bad_row, ("skip", "error"))
        if not 0 <= self.validation_fraction < 1:
            way_out = "Allowed: 0 or more and below 1"
            raise ConfigError(
                describe("stream.validation_fraction", "is out of range", self.validation_fraction, way_out)
            )

    def tasks(self) -> tuple[str, ...]:
        """Return the names of the tasks in the order asked for."""
        if self.order is None:
            return tuple(self.entries)
        if not isinstance(self.order, list):
            if str(self.order) not in self.orders:
                known = ", ".join(self.orders) or "none published"
                way_out = f"Orders: {known}; or write a list of tasks"
                raise ConfigError(describe("stream.order", "is no order of this stream", self.order, way_out))
            return self.orders[str(self.order)]
        for name in self.order:
            if name not in self.entries:
                way_out = f"{nearest(name, self.entries)}Tasks: {', '.join(self.entries)}"
                raise ConfigError(describe("stream.order", "names a task that this stream hasn't", name, way_out))
        if not self.order or len(set(self.order)) < len(self.order):
            way_out = "Name each task once; rounds: 2 goes through the order twice"
            raise ConfigError(describe("stream.order", "must name tasks, each once", self.order, way_out))
        return tuple(self.order)

    def build(self) -> Stream:
        """Read the rows and return the stream.

        Raises:
            StreamError: if the rows of a task aren't there (unless `skip_missing`) or can't be read, or no row is left
                to train on.
        Cost: one pass over all rows, and one more that hashes each.
        """
        folder = Path(self.folder).expanduser() if self.folder is not None else None
        if folder is not None and not folder.is_dir():
            way_out = "Check the path; docs/streams.md says what it holds"
            raise StreamError(describe("stream.folder", "there is no such folder", self.folder, way_out))
        tasks, left_out = [], []
        for name in self.tasks():
            try:
                data = find_data(name, self.entries[name], folder)
            except Missing:
                if not self.skip_missing:
                    raise
                left_out.append(name)
                continue
            tasks.append(load_entry(name, self.entries[name], data, self.on_bad_row, self.validation_fraction))
        if not tasks:
            way_out = "Check the folder; docs/streams.md says what it holds"
            raise StreamError(describe("stream", "the rows of no task are there", self.folder or "the hub", way_out))
        if left_out:
            note = f"the stream lacks {', '.join(left_out)}: no rows there."
            tasks[0] = replace(tasks[0], notes=(*tasks[0].notes, note))
        items = frozenset(digest for task in tasks for digest in digests_of(task, task.evaluation))
        return Stream(self.name(), tuple(self._sized(_apart(task, items)) for task in tasks))

    @classmethod
    def name(cls) -> str:
        """Return what the stream is called."""
        return cls.__module__.rpartition(".")[2]

    def _sized(self, task: Task) -> Task:
        return replace(
            task,
            train=self._take(task, task.train, self.train_rows, "train"),
            evaluation=self._take(task, task.evaluation, self.test_rows, "test"),
        )

    def _take(self, task: Task, rows: Rows, size: int | None, role: str) -> Rows:
        if size is None or size >= len(rows):
            return rows
        purpose = (self.data_seed, "domains", task.name, role)
        return select_rows(rows, subset(len(rows), size, groups_of(task, rows), *purpose))


def _apart(task: Task, items: Collection[bytes]) -> Task:
    """Return the task without training or validation rows that are evaluation items, nor ones that validate it.

    Raises:
        StreamError: if no training row is left.
    """
    validation, n_validation = _without(task, task.validation, items) if task.validation is not None else (None, 0)
    validating = frozenset(digests_of(task, validation)) if validation is not None else frozenset()
    train, n_train = _without(task, task.train, items | validating)
    if not len(train):
        way_out = "Give training rows that are not evaluation items"
        raise StreamError(describe(f"task {task.name!r}", "no row is left to train on", f"{n_train} left out", way_out))
    told = [
        f"task {task.name!r}: {role} rows that are {of}, and left out: {n}."
        for n, role, of in (
            (n_train, "training", "evaluation items or validation rows"),
            (n_validation, "validation", "evaluation items"),
        )
        if n
    ]
    if validation is not None and not len(validation):
        validation = None
    return replace(task, train=train, validation=validation, notes=(*task.notes, *told), allow_overlap=False)


def _without(task: Task, rows: Rows, unwanted: Collection[bytes]) -> tuple[Rows, int]:
    kept = [index for index, digest in enumerate(digests_of(task, rows)) if digest not in unwanted]
    return (rows, 0) if len(kept) == len(rows) else (select_rows(rows, kept), len(rows) - len(kept))

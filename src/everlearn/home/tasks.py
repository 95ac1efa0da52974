"""The tasks of a home: what each one is, and the evaluation items that it is measured on for good."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, StateError, StreamError, describe
from everlearn.home.files import read_sealed, sha256_of, write_sealed
from everlearn.state import write_file
from everlearn.streams.apart import ALLOW, Apart
from everlearn.streams.checking import answer_of, digest_of, loose_digest_of
from everlearn.streams.labels import with_labels
from everlearn.streams.loading import TaskOptions, build_task
from everlearn.streams.reading import Data
from everlearn.types import Kind, Row, Task

_NAME = re.compile(r"[^\W_][\w .+-]{0,99}")


@dataclass(frozen=True)
class TaskCard:
    """What a task is. `items` names the files of its evaluation rows and their SHA-256, in the order of the items.

    `declared`: whether the labels were given, so that whole numbers in rows are indices into them.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    declared: bool = False
    metrics: tuple[str, ...] = ()
    verifier: str | None = None
    max_new_tokens: int | None = None
    items: dict[str, str] = field(default_factory=dict)

    def task(self, train: Sequence[Row], evaluation: Sequence[Row], validation: Sequence[Row] | None = None) -> Task:
        """Return the task with these rows."""
        return Task(
            self.name, self.kind, train, evaluation, validation or None, self.labels, self.metrics, self.verifier,
            self.max_new_tokens,
        )  # fmt: skip


def check_name(name: str) -> None:
    """Raise ConfigError unless `name` can name a folder on any system."""
    if not _NAME.fullmatch(name) or name != name.strip(" ."):
        way_out = "Use letters, digits, spaces and . _ + -, up to 100; begin with a letter or digit"
        raise ConfigError(describe("task", "the name can't be used", name, way_out))


def read_new(
    name: str,
    train: Data,
    evaluation: Data | None,
    validation: Data | None,
    options: Mapping[str, Any],
    known: TaskCard | None,
    *,
    wants_validation: bool = False,
) -> tuple[TaskCard, Task]:
    """Read a task's files; where the home knows the task already, as more of the same.

    Args:
        options: of `TaskOptions`.
        known: the task's card, if it was learned before. Its labels, metrics and verifier hold on.
        wants_validation: whether early stopping can act.

    Raises:
        StreamError: if files or rows are bad, or differ in kind or labels from what is known.
        ConfigError: if an option is wrong, or not the one that the task was first learned with.
    """
    check_name(name)
    chosen: TaskOptions = from_mapping(TaskOptions, dict(options), "task options")
    chosen = replace(chosen, wants_validation=wants_validation)
    if known is not None:
        chosen = _as_before(chosen, options, known)
    task = build_task(name, train, evaluation, validation, chosen)
    if known is None:
        card = TaskCard(name, task.kind, task.labels, bool(chosen.labels), task.metrics, task.verifier)
        return replace(card, max_new_tokens=task.max_new_tokens), task
    return known, with_labels(task, known.labels)


def load_tasks(folder: Path) -> dict[str, tuple[TaskCard, list[Row]]]:
    """Return each task's card and evaluation items below `folder`.

    Raises:
        StateError: if a file is missing or altered.
    """
    found = sorted(path.parent.name for path in folder.glob("*/task.json") if not path.parent.name.startswith("."))
    return {name: load_task(folder / name) for name in found}


def load_task(folder: Path) -> tuple[TaskCard, list[Row]]:
    """Return one task's card and evaluation items."""
    card = from_mapping(TaskCard, read_sealed(folder / "task.json"), f"task {folder.name!r}")
    rows: list[Row] = []
    for name, sha256 in card.items.items():
        if sha256_of(folder / name) != sha256:
            way_out = "Restore it from a copy of the home"
            raise StateError(describe(str(folder / name), "is damaged (its checksum differs)", name, way_out))
        rows += read_rows(folder / name)
    return card, rows


def add_items(folder: Path, card: TaskCard, rows: Sequence[Row], version: int) -> None:
    """Keep a task's card and its new evaluation items; the ones it has stay as they are.

    A file of items is never changed, and counts once task.json names it: a crash in between changes nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"evaluation-{version:06d}.jsonl"
    items = dict(card.items)
    if rows:
        write_rows(folder / name, rows)
        items[name] = sha256_of(folder / name)
    write_sealed(folder / "task.json", asdict(replace(card, items=items)))


def new_items(rows: Iterable[Row], present: Iterable[Row]) -> tuple[list[Row], int]:
    """Return the rows whose content is not among `present`, and how many are there with another answer."""
    known = {digest_of(row): row for row in present}
    fresh, n_differing = [], 0
    for row in rows:
        stored = known.get(digest_of(row))
        if stored is None:
            fresh.append(dict(row))
        elif answer_of(stored) != answer_of(row):
            n_differing += 1
    return fresh, n_differing


def check_apart(task: Task, stored: Iterable[Task]) -> list[str]:
    """Return what is to be told of a new task beside those with items in the home: see `Apart.with_task`.

    Raises:
        StreamError: if a row that it trains on is an evaluation item of any: what is kept could no longer be told.
    """
    apart = Apart()
    for other in stored:
        apart, _ = apart.with_task(other)
    return apart.with_task(task)[1]


def trained_key(row: Row) -> str:
    """Return what a version keeps of a row that it was trained on: its content's hash."""
    return f"exact:{digest_of(row).hex()}"


def check_not_trained(task: Task, items: Iterable[Row], trained: Mapping[int, set[str]]) -> list[str]:
    """Return what is to be told of new evaluation items that earlier versions (number -> keys of their rows) were
    trained on.

    Raises:
        StreamError: if there are any, with the count for each version, unless the task allows it.
    """
    # older versions kept keys that near duplicates share
    keys = [{trained_key(row), loose_digest_of(row).hex()} for row in items]
    shared = {version: sum(not key.isdisjoint(seen) for key in keys) for version, seen in trained.items()}
    shared = {version: count for version, count in shared.items() if count}
    what = "evaluation items were trained on before, by version"
    if shared and task.allow_overlap:
        return [f"task {task.name!r}: {what}: {shared} (allow_overlap is set)."]
    if shared:
        raise StreamError(
            describe(f"task {task.name!r}", what, shared, f"Take them out of the evaluation rows, {ALLOW}")
        )
    return []


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON Lines; values that JSON lacks, such as dates, become text."""
    lines = (json.dumps(dict(row), ensure_ascii=False, default=str) for row in rows)
    write_file(path, "".join(f"{line}\n" for line in lines).encode("utf-8"))


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file that `write_rows` wrote.

    Raises:
        StateError: if it can't be read.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        way_out = "Restore it from a copy of the home"
        raise StateError(describe(str(path), f"can't be read ({error})", path.name, way_out)) from error


def _as_before(chosen: TaskOptions, given: Mapping[str, Any], known: TaskCard) -> TaskOptions:
    """Return the options with those that the task was first learned with; others must not be given differently."""
    before = {
        "metrics": list(known.metrics),
        "verifier": known.verifier,
        "max_new_tokens": known.max_new_tokens,
        "kind": known.kind,
    }
    if known.declared:
        before["labels"] = list(known.labels)
    for key, value in before.items():
        if key in given and vars(chosen)[key] != value:
            way_out = f"Leave it out: the task was first learned with {value!r}; or give the task another name"
            raise ConfigError(describe(f"task {known.name!r}: {key}", "differs", given[key], way_out))
    return replace(chosen, **before)

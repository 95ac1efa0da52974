"""Reading what is to be learned: as the task is known, training and evaluation kept apart."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, StreamError, describe
from everlearn.home.tasks import TaskCard
from everlearn.streams.checking import digest_of
from everlearn.streams.labels import with_labels
from everlearn.streams.loading import TaskOptions, build_task
from everlearn.streams.reading import Data
from everlearn.types import Row, Task

_NAME = re.compile(r"[^\W_][\w .+-]{0,99}")


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
) -> tuple[TaskCard, Task]:
    """Read a task's files; where the home knows the task already, as more of the same.

    Args:
        options: of `TaskOptions`.
        known: the task's card, if it was learned before. Its labels, metrics and verifier hold on.

    Raises:
        StreamError: if files or rows are bad, or differ in kind or labels from what is known.
        ConfigError: if an option is wrong, or not the one that the task was first learned with.
    """
    check_name(name)
    chosen: TaskOptions = from_mapping(TaskOptions, dict(options), "task options")
    if known is not None:
        chosen = _as_before(chosen, options, known)
    task = build_task(name, train, evaluation, validation, chosen)
    if known is None:
        card = TaskCard(name, task.kind, task.labels, bool(chosen.labels), task.metrics, task.verifier)
        return replace(card, max_new_tokens=task.max_new_tokens), task
    return known, with_labels(task, known.labels)


def check_apart(name: str, rows: Iterable[Row], items: Mapping[str, Iterable[Row]]) -> None:
    """Do nothing if no row that is trained on is an evaluation item of any task.

    Raises:
        StreamError: with the count for each task; such a row would fake the numbers that tell what is kept.
    """
    trained = [digest_of(row) for row in rows]
    shared = {}
    for task, present in items.items():
        measured = {digest_of(row) for row in present}
        count = sum(digest in measured for digest in trained)
        if count:
            shared[task] = count
    if shared:
        way_out = "Take them out of the training rows, or the scores of these tasks would tell nothing"
        raise StreamError(describe(f"task {name!r}", "training rows are evaluation items of tasks", shared, way_out))


def check_not_trained(name: str, items: Iterable[Row], trained: Mapping[int, set[str]]) -> None:
    """Do nothing if no new evaluation item was trained on by an earlier version (number -> digests of its rows).

    Raises:
        StreamError: with the count for each version.
    """
    digests = [digest_of(row).hex() for row in items]
    shared = {version: sum(digest in seen for digest in digests) for version, seen in trained.items()}
    shared = {version: count for version, count in shared.items() if count}
    if shared:
        way_out = "Take them out of the evaluation rows"
        what = "evaluation items were trained on before, by version"
        raise StreamError(describe(f"task {name!r}", what, shared, way_out))


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

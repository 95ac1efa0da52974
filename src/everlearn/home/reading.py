"""Reading what is to be learned: as the task is known, training and evaluation kept apart."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, StreamError, describe
from everlearn.home.tasks import TaskCard
from everlearn.streams.apart import ALLOW, Apart
from everlearn.streams.checking import digest_of, loose_digest_of
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
        beside = {name: vars(task)[name] for name in ("max_new_tokens", "description", "threshold", "beta")}
        return replace(card, **beside), task
    return known, with_labels(task, known.labels)


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


def _as_before(chosen: TaskOptions, given: Mapping[str, Any], known: TaskCard) -> TaskOptions:
    """Return the options with those that the task was first learned with; others must not be given differently."""
    before = {
        "metrics": list(known.metrics),
        "verifier": known.verifier,
        "max_new_tokens": known.max_new_tokens,
        "threshold": known.threshold,
        "beta": known.beta,
        "kind": known.kind,
    }
    if known.declared:
        before["labels"] = list(known.labels)
    for key, value in before.items():
        if key in given and vars(chosen)[key] != value:
            way_out = f"Leave it out: the task was first learned with {value!r}; or give the task another name"
            raise ConfigError(describe(f"task {known.name!r}: {key}", "differs", given[key], way_out))
    return replace(chosen, **before)

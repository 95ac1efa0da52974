"""What a task is taught with, in any form in which users hold it, as `ContinualTrainer.train_task` takes it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from everlearn.errors import StreamError, describe, nearest
from everlearn.streams.loading import TaskOptions
from everlearn.types import Rows

NAMES = {  # of a part, in a mapping
    "train": ("train", "training"),
    "evaluate": ("test", "evaluate", "evaluation", "eval"),
    "validation": ("validation", "valid", "val", "dev"),
}
LOADERS = {"train": "train_loader", "evaluate": "val_loader"}


@dataclass(frozen=True, kw_only=True)
class TaskConfig(TaskOptions):
    """A task's data, and how they are read: labels, columns, kind and the other `TaskOptions`.

    Args:
        train, evaluate, validation: JSONL, CSV or Parquet files, lists of rows, `datasets.Dataset`s or data loaders.
            Without `evaluate` a fifth of the training rows is held out.
    """

    train: str | Path | Rows | DataLoader
    evaluate: str | Path | Rows | DataLoader | None = None
    validation: str | Path | Rows | None = None


def parts_of(data: Any) -> dict[str, Any]:
    """Return a task's data by the arguments of `ContinualTrainer.train_task`.

    Args:
        data: a file, rows, a `datasets.Dataset`, a data loader or an `everlearn.Task`, of which a fifth is held out
            where it doesn't say what is to be measured; a mapping of those, such as {"train": ..., "test": ...} or a
            `DatasetDict`; a pair (train, test); or a `TaskConfig`. What is called validation is what the task is
            measured on where there is no test, else it is for early stopping.

    Raises:
        StreamError: if a part of a mapping has another name, or stands twice; or there is none to train on.
    """
    if isinstance(data, TaskConfig):
        parts = {name: vars(data)[name] for name in NAMES}
        own = {field.name: vars(data)[field.name] for field in fields(TaskOptions)}
        return {**_placed(parts), "options": own}
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], Mapping):
        return _placed({"train": data[0], "evaluate": data[1]})
    return _placed(_named(data) if isinstance(data, Mapping) else {"train": data})


def _named(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a mapping by our names."""
    meaning = {name: part for part, names in NAMES.items() for name in names}
    parts: dict[str, Any] = {}
    for name, value in data.items():
        if name not in meaning:
            way_out = f"{nearest(str(name), meaning)}Names: {', '.join(meaning)}; rows are a list of mappings"
            raise StreamError(describe("task", "is a mapping with a part of an unknown name", name, way_out))
        if meaning[name] in parts:
            raise StreamError(describe("task", f"names its {meaning[name]} rows twice", list(data), "Give one of them"))
        parts[meaning[name]] = value
    if "train" not in parts:
        raise StreamError(describe("task", "has nothing to train on", list(data), 'Give {"train": rows, "test": rows}'))
    if "evaluate" not in parts and "validation" in parts:
        parts["evaluate"] = parts.pop("validation")
    return parts


def _placed(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return parts by the names of the arguments: data loaders have their own."""
    placed = {}
    for name, value in parts.items():
        if value is not None:
            placed[LOADERS.get(name, name) if isinstance(value, DataLoader) else name] = value
    return placed

"""What a run is made of, as hashes of its tasks' rows and its model's files; a run goes on with no others."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from everlearn.errors import StateError, describe
from everlearn.models.load import ModelConfig
from everlearn.models.origin import differing_files, origin_of
from everlearn.record import read_lines
from everlearn.streams.apart import bytes_of
from everlearn.types import Rows, Task, TensorRows

_WAY_OUT = "Put back what was there (where it lies makes no difference), or begin anew in another folder"


@dataclass(frozen=True)
class Provenance:
    """data: what `data_record` returns of each task. model: the fingerprint of the model (models/origin.py)."""

    data: tuple[Mapping[str, Any], ...]
    model: Mapping[str, str]

    @classmethod
    def of(cls, tasks: Iterable[Task], model: ModelConfig) -> "Provenance":
        """Return what a run with these tasks and this model is made of.

        Cost: reads a local model once, and hashes every row.
        """
        return cls(tuple(data_record(task) for task in tasks), origin_of(model))

    @classmethod
    def read(cls, content: Any, where: str) -> "Provenance":
        """Return what `asdict` made JSON of.

        Raises:
            StateError: if it is something else.
        """
        if not isinstance(content, Mapping) or set(content) != {"data", "model"}:
            way_out = "Restore it from a copy, or begin anew in another folder"
            raise StateError(describe(where, "doesn't say what was begun with", content, way_out))
        return cls(tuple(content["data"]), content["model"])

    def check_same(self, begun: "Provenance | None") -> None:
        """Do nothing if this is what a run began with, or if that isn't known (None).

        Raises:
            StateError: naming the first task, or the model's files, that differ.
        """
        if begun is None:
            return
        before, now = ({record["task"]: record for record in one.data} for one in (begun, self))
        if list(before) != list(now):
            what = "the tasks are not those that it began with"
            raise StateError(describe("resume", what, f"{list(before)}, now {list(now)}", _WAY_OUT))
        for name, record in before.items():
            differing = _differences(record, now[name])
            if differing:
                what = "the rows are not those that it began with"
                raise StateError(describe(f"task {name!r}", what, "; ".join(differing), _WAY_OUT))
        files = differing_files(begun.model, self.model)
        if files:
            raise StateError(describe("model", "is not the one that it began with", files[:4], _WAY_OUT))


def data_record(task: Task) -> dict[str, Any]:
    """Return what is written down of a task's data, as JSON: how many rows each role has, and their SHA-256."""
    given = {"train": task.train, "validation": task.validation, "evaluation": task.evaluation}
    roles = {role: rows for role, rows in given.items() if rows is not None}
    return {
        "task": task.name,
        "kind": task.kind,
        "labels": list(task.labels),
        "n": {role: len(rows) for role, rows in roles.items()},
        "sha256": {role: rows_sha256(rows) for role, rows in roles.items()},
        "notes": list(task.notes),
    }


def rows_sha256(rows: Rows) -> str:
    """Return the SHA-256 of rows in their order: of their JSON, or of tensors' types, shapes and bytes."""
    content = hashlib.sha256()
    if isinstance(rows, TensorRows):
        for tensor in (rows.x, rows.y):
            content.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
            content.update(bytes_of(tensor))
        return content.hexdigest()
    for row in rows:
        text = json.dumps(dict(row), sort_keys=True, default=_as_json)
        content.update(f"{text}\n".encode())
    return content.hexdigest()


def read_begun(log: Path) -> Provenance | None:
    """Return what the first lines of a results.jsonl say that its run is made of; None where they don't.

    Raises:
        StateError: if it is damaged.
    """
    header, *lines = read_lines(log) or [{}]
    records = tuple(takewhile(lambda line: line.get("type") == "data", lines))
    return Provenance(records, header["model"]) if "model" in header else None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    for role in dict.fromkeys([*before["n"], *now["n"]]):
        old, new = (one["n"].get(role, 0) for one in (before, now))
        if before["sha256"].get(role) != now["sha256"].get(role):
            found.append(f"{role}: {old} rows, now {new}" if old != new else f"{role}: {old} rows, with other content")
    if before["labels"] != now["labels"]:
        found.append(f"labels: {before['labels']}, now {now['labels']}")
    return found


def _as_json(value: Any) -> Any:
    """Return a value that JSON lacks, such as a date or the tensor of a sample, as one that it has."""
    return [str(value.dtype), value.tolist()] if isinstance(value, torch.Tensor) else str(value)

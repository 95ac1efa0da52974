"""A memory of training rows: which rows of the past are kept, as rows that anyone can read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch

from everlearn.functional.reservoir import draw_within, kept_by_reservoir
from everlearn.memory.disk import DiskRows, open_rows, stored_row, text_of, write_rows
from everlearn.state import FILE
from everlearn.streams.rows import NestedRows
from everlearn.types import Examples, Row, Rows, Task, TensorRows

Stored = dict[str, Any]  # {"rows": [row, ...]}, {"x": tensor, "y": tensor}, or what stands for a file (memory/disk.py)
Memory = dict[str, Stored]  # task name -> its rows; the whole is tensors and JSON, ready to be saved


@dataclass(frozen=True)
class JoinedRows(Sequence):
    """The rows of one sequence and then those of another."""

    first: Rows
    second: Rows

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> Row:
        n = len(self.first)
        return self.first[index] if index < n else self.second[index - n]


def pick(rows: Rows, indices: Sequence[int]) -> Stored:
    """Return copies of some rows in the form in which they are saved."""
    if isinstance(rows, TensorRows):
        picked = rows.select(indices)
        return {"x": picked.x.clone(), "y": picked.y.clone()}
    return {"rows": [stored_row(row) for row in _at(rows, indices)]}


def pick_to_disk(rows: Rows, indices: Sequence[int], folder: Path) -> Stored:
    """Write some rows into a file below `folder` and return what stands for them."""
    picked = rows.select(indices) if isinstance(rows, TensorRows) else _at(rows, indices)
    return write_rows(picked, len(indices), folder)


def rows_of(stored: Stored, folder: Path | None = None) -> Rows:
    """Return stored rows as rows. `folder`: where memories on disk are."""
    if FILE in stored:
        return open_rows(stored, folder)
    return TensorRows(stored["x"], stored["y"]) if "x" in stored else stored["rows"]


def n_rows(stored: Stored) -> int:
    """Return the number of stored rows."""
    return stored["n_rows"] if FILE in stored else len(rows_of(stored))


def join(first: Stored, second: Stored) -> Stored:
    """Return the rows of both."""
    if "x" in first:
        return {name: torch.cat([first[name], second[name]]) for name in ("x", "y")}
    return {"rows": first["rows"] + second["rows"]}


def join_rows(first: Rows, second: Rows) -> Rows:
    """Return the rows of both; only tensors are copied."""
    if isinstance(first, TensorRows):
        return TensorRows(torch.cat([first.x, second.x]), torch.cat([first.y, second.y]))
    return JoinedRows(first, second)


def size(memory: Memory) -> int:
    """Return the number of rows in a memory."""
    return sum(map(n_rows, memory.values()))


def row_bytes(rows: Rows, indices: Sequence[int] | None = None) -> list[int]:
    """Return the bytes that each row (or each of those at `indices`) takes as stored: JSON in UTF-8, or tensors."""
    n = len(rows) if indices is None else len(indices)
    if isinstance(rows, TensorRows):
        one = rows[:1]
        return [one.x.nbytes + one.y.nbytes] * n if n else []
    return [len(text_of(row).encode()) for row in (rows if indices is None else _at(rows, indices))]


def row_keys(rows: Rows) -> Iterator[str]:
    """Yield for each row a text that equal rows share."""
    if isinstance(rows, TensorRows):
        for row in rows:
            yield "/".join(row[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes().hex() for name in "xy")
    else:
        yield from map(text_of, rows)


def parts(memory: Memory, tasks: dict[str, Task], folder: Path | None = None) -> tuple[Examples, ...]:
    """Return the memory as examples, a part for each task."""
    return tuple(
        Examples(tasks[name], rows_of(stored, folder)) for name, stored in memory.items() if n_rows(stored)
    )  # fmt: skip


def add_by_reservoir(
    memory: Memory, task: str, rows: Rows, n_seen: int, capacity: int, generator: torch.Generator
) -> Memory:
    """Return the memory after all rows of a task went through a reservoir of `capacity` rows over all tasks."""
    sizes = {name: n_rows(stored) for name, stored in memory.items()}
    present = {name: rows_of(stored) for name, stored in memory.items()}
    present[task] = join_rows(present[task], rows) if task in present else rows
    kept = kept_by_reservoir(sizes, task, len(rows), n_seen, capacity, generator)
    return {name: pick(present[name], indices) for name, indices in kept.items()}


def bound_reservoir(memory: Memory, n_seen: int, capacity: int, generator: torch.Generator) -> tuple[Memory, int]:
    """Return (the memory within `capacity` rows over all tasks, how many rows it is a sample of).

    The capacity may have been lowered since the memory was filled. One that is empty begins anew with the rows to come.
    """
    sizes = {name: n_rows(stored) for name, stored in memory.items()}
    if sum(sizes.values()) > capacity:
        kept = draw_within(sizes, capacity, generator)
        memory = {name: pick(rows_of(memory[name]), indices) for name, indices in kept.items()}
    return memory, n_seen if memory else 0


def add_sample(memory: Memory, task: str, rows: Rows, n: int, generator: torch.Generator) -> Memory:
    """Return the memory with `n` rows of a task, drawn uniformly without replacement, instead of those it had."""
    order = torch.randperm(len(rows), generator=generator)[:n].tolist()
    return {**memory, task: pick(rows, order)}


def _at(rows: Rows, indices: Sequence[int]) -> Sequence[Row]:
    if isinstance(rows, datasets.Dataset | DiskRows | NestedRows):
        return rows.select(indices)
    return [rows[int(i)] for i in indices]

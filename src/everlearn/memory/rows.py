"""A memory of training rows: which rows of the past are kept, as rows that anyone can read."""

from collections.abc import Sequence
from typing import Any

import torch

from everlearn.functional.reservoir import reservoir_slots
from everlearn.types import Examples, Rows, Task, TensorRows

Stored = dict[str, Any]  # {"rows": [row, ...]} or {"x": tensor, "y": tensor}
Memory = dict[str, Stored]  # task name -> its rows; the whole is tensors and JSON, ready to be saved


def pick(rows: Rows, indices: Sequence[int]) -> Stored:
    """Return copies of some rows in the form in which they are saved."""
    if isinstance(rows, TensorRows):
        picked = rows.select(indices)
        return {"x": picked.x.clone(), "y": picked.y.clone()}
    return {"rows": [dict(rows[int(i)]) for i in indices]}


def rows_of(stored: Stored) -> Rows:
    """Return stored rows as rows."""
    return TensorRows(stored["x"], stored["y"]) if "x" in stored else stored["rows"]


def join(first: Stored, second: Stored) -> Stored:
    """Return the rows of both."""
    if "x" in first:
        return {name: torch.cat([first[name], second[name]]) for name in ("x", "y")}
    return {"rows": first["rows"] + second["rows"]}


def size(memory: Memory) -> int:
    """Return the number of rows in a memory."""
    return sum(len(rows_of(stored)) for stored in memory.values())


def parts(memory: Memory, tasks: dict[str, Task]) -> tuple[Examples, ...]:
    """Return the memory as examples, a part for each task."""
    return tuple(Examples(tasks[name], rows_of(stored)) for name, stored in memory.items() if len(rows_of(stored)))


def add_by_reservoir(
    memory: Memory, task: str, rows: Rows, n_seen: int, capacity: int, generator: torch.Generator
) -> Memory:
    """Return the memory after all rows of a task went through a reservoir of `capacity` rows over all tasks."""
    slots = [(name, i) for name, stored in memory.items() for i in range(len(rows_of(stored)))]
    placed = reservoir_slots(n_seen, len(rows), capacity, generator)
    kept: dict[str, list[int]] = {}
    for slot, (name, i) in enumerate(slots):
        if slot not in placed:
            kept.setdefault(name, []).append(i)
    updated = {name: pick(rows_of(memory[name]), indices) for name, indices in kept.items()}
    new = pick(rows, [placed[slot] for slot in sorted(placed)])
    if placed:
        updated[task] = join(updated[task], new) if task in updated else new
    return updated


def add_sample(memory: Memory, task: str, rows: Rows, n: int, generator: torch.Generator) -> Memory:
    """Return the memory with `n` rows of a task, drawn uniformly without replacement, instead of those it had."""
    order = torch.randperm(len(rows), generator=generator)[:n].tolist()
    return {**memory, task: pick(rows, order)}

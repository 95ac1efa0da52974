"""Choosing rows: deterministic subsets and partitions that keep each class's share."""

from collections.abc import Hashable, Sequence

import datasets
import torch

from everlearn.seeds import generator_for
from everlearn.streams.rows import NestedRows, column_of
from everlearn.streams.sampled import SampledRows
from everlearn.types import Rows, Task, TensorRows


def groups_of(task: Task, rows: Rows) -> list[Hashable] | None:
    """Return the class of each row, of several labels their set; None where rows have no class."""
    if task.kind == "tensor":
        targets = task.targets(rows)
        return None if targets.is_floating_point() or targets.ndim > 1 else targets.tolist()
    if task.kind == "multilabel":
        return [tuple(sorted(labels)) for labels in column_of(rows, "labels")]
    if task.kind != "classify":
        return None
    return column_of(rows, "label")


def select_rows(rows: Rows, indices: Sequence[int]) -> Rows:
    """Return the rows at `indices`, in that order, in the same container."""
    if isinstance(rows, TensorRows | datasets.Dataset | NestedRows):
        return rows.select(indices)
    return [rows[index] for index in indices]


def draw_rows(rows: Rows, n: int | None, generator: torch.Generator) -> Rows:
    """Return at most `n` rows (null: all), drawn uniformly without replacement, in their order."""
    drawn = sorted(torch.randperm(len(rows), generator=generator)[:n].tolist())
    return rows.subset(drawn) if isinstance(rows, SampledRows) else select_rows(rows, drawn)


def subset(n_rows: int, n_wanted: int, groups: Sequence[Hashable] | None, *purpose: object) -> list[int]:
    """Return `n_wanted` of the indices 0..n_rows-1, ascending; all if there are no more.

    Each class gets its share, rounded by largest remainder; which of its rows is decided by the hash of `purpose`.
    """
    if n_wanted >= n_rows:
        return list(range(n_rows))
    shuffled = _shuffled_groups(n_rows, groups, purpose)
    quotas = [n_wanted * len(members) / n_rows for members in shuffled]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda index: (counts[index] - quotas[index], index))
    for index in by_remainder[: n_wanted - sum(counts)]:
        counts[index] += 1
    return sorted(row for members, count in zip(shuffled, counts, strict=True) for row in members[:count])


def partition(n_rows: int, n_parts: int, groups: Sequence[Hashable] | None, *purpose: object) -> list[list[int]]:
    """Return the indices 0..n_rows-1 in `n_parts` disjoint ascending lists.

    Their sizes, and the sizes of each class in them, differ by one at most.
    """
    dealt = [row for members in _shuffled_groups(n_rows, groups, purpose) for row in members]
    return [sorted(dealt[part::n_parts]) for part in range(n_parts)]


def _shuffled_groups(n_rows: int, groups: Sequence[Hashable] | None, purpose: tuple[object, ...]) -> list[list[int]]:
    members: dict[Hashable, list[int]] = {}
    for index in range(n_rows):
        members.setdefault(groups[index] if groups is not None else None, []).append(index)
    shuffled = []
    for group in sorted(members, key=str):
        order = torch.randperm(len(members[group]), generator=generator_for(*purpose, group)).tolist()
        shuffled.append([members[group][position] for position in order])
    return shuffled

"""Batches of a mixture: which rows meet in which step, as a pure function of (seed, task, epoch)."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from everlearn.memory.disk import DiskRows
from everlearn.models.objectives import Batch, Features, Objective, Samples
from everlearn.seeds import generator_for
from everlearn.types import Examples, Loader, Mixture, Rows, Task

WINDOW_STEPS = 50  # rows are sorted by length within windows of so many steps


@dataclass(frozen=True)
class BatchPlan:
    """How batches are cut. `size`: first-group rows of a micro-batch; `accumulation`: micro-batches in a step."""

    size: int
    accumulation: int
    group_by_length: bool


@dataclass(frozen=True)
class LazyFeatures(Sequence):
    """The features of rows that lie on disk, encoded when a batch takes them."""

    objective: Objective
    rows: DiskRows
    task: Task

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.take([index])[0]

    def take(self, indices: list[int]) -> list[dict[str, Any]]:
        """Return the features of the rows at `indices`."""
        return list(self.objective.encode(self.rows.select(indices), self.task))


@dataclass(frozen=True)
class LoaderFeatures(Sequence):
    """The samples behind a data loader of the user's, read from its dataset when a batch takes them."""

    loader: Loader

    def __len__(self) -> int:
        return len(self.loader.samples)

    def __getitem__(self, index: int) -> Samples:
        return self.take([index])[0]

    def take(self, indices: list[int]) -> list[Samples]:
        """Return the samples at `indices`."""
        return [Samples([self.loader.samples[i] for i in indices], self.loader.collate)]


@dataclass(frozen=True)
class MixedIn:
    """A group that is mixed in: after n rows of the first group, int(n * ratio + start) of its rows were.

    So their number is exact to less than one row, over batches and epochs. `start`, 0 where the group is the only one,
    differs between groups, so that several of small ratios don't all wait for their first whole row.
    """

    group: int
    ratio: float
    start: float

    def n_due(self, done: int, now: int) -> int:
        """Return how many of its rows come with rows `done` to `now` of the first group."""
        return self._whole(now) - self._whole(done)

    def _whole(self, n: int) -> int:
        return int(n * self.ratio + self.start + 1e-9)


class EncodedMixture(Dataset):
    """The features of a mixture, addressed by (group, row)."""

    def __init__(self, mixture: Mixture, objective: Objective):
        self.objective = objective
        self.ratios = [group.ratio for group in mixture.groups]
        self.loader = next((group.loader for group in mixture.groups[:1]), None)
        self.by_row = frozenset(number for number, group in enumerate(mixture.groups) if group.by_row)
        self.parts: list[list[Features]] = [
            [_features(objective, part) for part in group.parts if len(part)] for group in mixture.groups
        ]
        if self.loader is not None:
            self.parts[0] = [LoaderFeatures(self.loader)]
        self.sizes = [sum(len(features) for features in parts) for parts in self.parts]
        self._ends = [list(accumulate(len(features) for features in parts)) for parts in self.parts]

    def __len__(self) -> int:
        return sum(self.sizes)

    def mixed_in(self) -> list[MixedIn]:
        """Return the groups after the first that have rows to mix in."""
        found = [n for n, ratio in enumerate(self.ratios) if n > 0 and ratio > 0 and self.sizes[n] > 0]
        starts = [(i + 0.5) / len(found) if len(found) > 1 else 0.0 for i in range(len(found))]
        return [MixedIn(group, self.ratios[group], start) for group, start in zip(found, starts, strict=True)]

    def length_of(self, group: int, row: int) -> int:
        """Return the number of tokens of a row, 1 for tensors."""
        part, row = self._place(group, row)
        features = self.parts[group][part][row]
        return len(features["input_ids"]) if isinstance(features, dict) and "input_ids" in features else 1

    def __getitems__(self, addresses: list[tuple[int, int]]) -> Batch:
        """Fetch and collate the rows at (group, row); DataLoader calls this once a batch."""
        by_part: dict[tuple[int, int], list[int]] = {}
        for group, row in addresses:
            part, place = self._place(group, row) if len(self._ends[group]) > 1 else (0, row)
            by_part.setdefault((group, part), []).append(place)
        picked: list[dict[str, Any]] = []
        for (group, part), rows in by_part.items():
            features = self.parts[group][part]
            lazy = isinstance(features, LazyFeatures | LoaderFeatures)
            picked += features.take(rows) if lazy else self.objective.take(features, rows)
        return self.objective.collate(picked)

    def in_batch_order(self, addresses: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return addresses in the order in which `__getitems__` lays their rows: those of one part together."""
        if all(len(parts) < 2 for parts in self.parts):  # a batch names its groups one after another
            return addresses
        by_part: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for group, row in addresses:
            by_part.setdefault((group, self._place(group, row)[0]), []).append((group, row))
        return [address for part in by_part.values() for address in part]

    def _place(self, group: int, row: int) -> tuple[int, int]:
        part = bisect_right(self._ends[group], row)
        return part, row - (self._ends[group][part - 1] if part else 0)


def plan_epoch(
    mixture: EncodedMixture,
    plan: BatchPlan,
    seed_parts: tuple[Any, ...],
    epoch: int = 0,
    held: frozenset[int] = frozenset(),
) -> list[list[list[tuple[int, int]]]]:
    """Return an epoch's steps, each a list of micro-batches, each a list of (group, row).

    The rows of step k are the same for 4 micro-batches of 2 and 1 of 8. Groups after the first are dealt out in
    shuffled passes, `ratio` rows for each row of the first group; what is left of a row goes over to the next epoch.
    Where a data loader of the user's draws the first group's rows, its batches are the micro-batches.

    Args:
        held: rows of the first group that the epoch leaves out.
    """
    seed_parts = (*seed_parts, epoch)
    micro_batches = _first_group(mixture, plan, seed_parts, held)
    extra = [(each, endless_rows(each.group, mixture.sizes[each.group], seed_parts)) for each in mixture.mixed_in()]
    now = epoch * sum(map(len, micro_batches))
    steps = []
    for start in range(0, len(micro_batches), plan.accumulation):
        step = []
        for own in micro_batches[start : start + plan.accumulation]:
            rows = [(0, row) for row in own]
            done, now = now, now + len(rows)
            for each, rows_of_group in extra:
                rows += [next(rows_of_group) for _ in range(each.n_due(done, now))]
            step.append(rows)
        steps.append(step)
    return steps


def n_task_steps(mixture: EncodedMixture, plan: BatchPlan, n_epochs: int) -> int:
    """Return the number of optimizer steps in all epochs."""
    if mixture.loader is not None:
        return sum(-(-len(mixture.loader.batches(epoch)) // plan.accumulation) for epoch in range(n_epochs))
    return -(-mixture.sizes[0] // (plan.size * plan.accumulation)) * n_epochs


def load_steps(
    mixture: EncodedMixture,
    steps: list[list[list[tuple[int, int]]]],
    *,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
    seed: int = 0,
) -> Iterator[list[Batch]]:
    """Yield the micro-batches of each step on the CPU; each process takes every `world_size`-th row of a micro-batch.

    A process without a row in a micro-batch gets an empty dict for it. seed: of the workers' global generators, which
    torch derives from it for Python, NumPy and itself.
    """
    shares = [[micro[rank::world_size] for micro in step] for step in steps]
    filled = [share for step in shares for share in step if share]
    loader = DataLoader(
        mixture,
        batch_sampler=filled,
        collate_fn=_as_is,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),  # its own: opening a loader doesn't move the global one
    )
    batches = iter(loader)
    for step in shares:
        yield [next(batches) if share else {} for share in step]


def row_batches(
    objective: Objective, rows: Rows, task: Task, size: int, *, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[list[int], Batch]]:
    """Yield (row indices, batch) over rows in order, outside training; each process takes every world_size-th batch."""
    yield from feature_batches(objective, objective.encode(rows, task), size, rank=rank, world_size=world_size)


def feature_batches(
    objective: Objective, features: Features, size: int, *, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[list[int], Batch]]:
    """Yield (indices, batch) over features in order; each process takes every world_size-th batch."""
    for number, low in enumerate(range(0, len(features), size)):
        if number % world_size == rank:
            indices = list(range(low, min(low + size, len(features))))
            yield indices, objective.collate(objective.take(features, indices))


def _first_group(
    mixture: EncodedMixture, plan: BatchPlan, seed_parts: tuple[Any, ...], held: frozenset[int]
) -> list[list[int]]:
    """Return the first group's rows of each micro-batch of the epoch."""
    if mixture.loader is not None:
        return mixture.loader.batches(seed_parts[-1])
    order = _epoch_order(mixture, plan, seed_parts, held)
    return [order[low : low + plan.size] for low in range(0, len(order), plan.size)]


def _epoch_order(
    mixture: EncodedMixture, plan: BatchPlan, seed_parts: tuple[Any, ...], held: frozenset[int]
) -> list[int]:
    generator = generator_for(*seed_parts, "order")
    order = [row for row in torch.randperm(mixture.sizes[0], generator=generator).tolist() if row not in held]
    if not plan.group_by_length:
        return order
    step_size = plan.size * plan.accumulation
    window = step_size * WINDOW_STEPS
    blocks = []
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lambda row: mixture.length_of(0, row))
        blocks += [rows[low : low + step_size] for low in range(0, len(rows), step_size)]
    whole, rest = [b for b in blocks if len(b) == step_size], [b for b in blocks if len(b) < step_size]
    shuffled = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
    return [row for block in shuffled + rest for row in block]


def endless_rows(group: int, size: int, seed_parts: tuple[Any, ...]) -> Iterator[tuple[int, int]]:
    """Yield (group, row) over the rows of a group in one shuffled pass after another."""
    generator = generator_for(*seed_parts, "group", group)
    while True:
        for row in torch.randperm(size, generator=generator).tolist():
            yield group, row


def _features(objective: Objective, part: Examples) -> Features:
    if isinstance(part.rows, DiskRows):
        return LazyFeatures(objective, part.rows, part.task)
    return objective.encode(part.rows, part.task)


def _as_is(batch: Batch) -> Batch:
    return batch

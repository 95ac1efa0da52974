"""Batches of a mixture: which rows meet in which step, as a pure function of (seed, task, epoch)."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from everlearn.memory.disk import DiskRows
from everlearn.models.objectives import Batch, Features, Objective, Samples
from everlearn.models.preferences import PairFeatures
from everlearn.models.tokens import LabelledFeatures, TokenFeatures
from everlearn.seeds import generator_for
from everlearn.types import Examples, Loader, Mixture, Rows, Task

WINDOW_STEPS = 50  # rows are sorted by length within windows of so many steps
LEAST_STEPS = 8  # in an epoch, for rows to be sorted by themselves: sorted, few steps would be the same in each epoch
UNLIKE = 2.0  # and how much longer than the row at the first decile the one at the last must be
Micro = list[tuple[int, int]]  # (group, row) of a micro-batch


@dataclass(frozen=True)
class BatchPlan:
    """How batches are cut.

    Attributes:
        size: first-group rows of a micro-batch.
        accumulation: micro-batches in a step.
        group_by_length: whether rows of like length share a step; "auto": see `EncodedMixture.sorts`.
        tokens: first-group tokens of a micro-batch, padding included, in place of `size`. A step then has the rows that
            fit `tokens` times `accumulation`, in as many micro-batches as they need; longer rows are alone.
    """

    size: int
    accumulation: int
    group_by_length: bool | str
    tokens: int | None = None


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


def mixed_in(ratios: Sequence[float], sizes: Sequence[int]) -> list[MixedIn]:
    """Return the groups after the first that have rows to mix in, of a mixture's groups with these ratios and sizes."""
    found = [n for n, ratio in enumerate(ratios) if n > 0 and ratio > 0 and sizes[n] > 0]
    starts = [(i + 0.5) / len(found) if len(found) > 1 else 0.0 for i in range(len(found))]
    return [MixedIn(group, ratios[group], start) for group, start in zip(found, starts, strict=True)]


class EncodedMixture(Dataset):
    """The features of a mixture, addressed by (group, row)."""

    def __init__(
        self,
        mixture: Mixture,
        objective: Objective,
        told: Callable[[int, int], None] | None = None,
        collate: Callable[[list[Any]], Batch] | None = None,
    ):
        """Encode the rows.

        Args:
            told: is called now and then with the number of rows done, and of all that are to be.
            collate: makes a batch of features; by default as the objective does.
        """
        self.objective = objective
        self.collate = collate or objective.collate
        self.ratios = [group.ratio for group in mixture.groups]
        self.loader = next((group.loader for group in mixture.groups[:1]), None)
        self.by_row = frozenset(number for number, group in enumerate(mixture.groups) if group.by_row)
        told = _counted(mixture, told)
        encoded = mixture.groups if self.loader is None else mixture.groups[1:]
        self.parts: list[list[Features]] = [
            [_features(objective, part, told) for part in group.parts if len(part)] for group in encoded
        ]
        if self.loader is not None:
            self.parts.insert(0, [LoaderFeatures(self.loader)])
        self.sizes = [sum(len(features) for features in parts) for parts in self.parts]
        self._ends = [list(accumulate(len(features) for features in parts)) for parts in self.parts]

    def __len__(self) -> int:
        return sum(self.sizes)

    def mixed_in(self) -> list[MixedIn]:
        """Return the groups after the first that have rows to mix in."""
        return mixed_in(self.ratios, self.sizes)

    @cached_property
    def lengths(self) -> np.ndarray | None:
        """How many tokens each row of the first group has [n_rows], int64; None where rows aren't tokens."""
        parts = [_lengths(features) for features in self.parts[0]]
        return None if any(part is None for part in parts) else np.concatenate([np.zeros(0, np.int64), *parts])

    def sorts(self, plan: BatchPlan) -> bool:
        """Return whether rows of like length are to share a step.

        `auto`: where rows are tokens, the longest tenth is more than twice as long as the shortest, and there are
        enough steps.
        """
        if plan.group_by_length != "auto" or not self.sizes[0]:
            return plan.group_by_length is True
        if self.lengths is None or self.sizes[0] < LEAST_STEPS * self.rows_of_step(plan):
            return False
        shortest, longest = np.quantile(self.lengths, (0.1, 0.9))
        return bool(longest > UNLIKE * shortest)

    def rows_of_step(self, plan: BatchPlan) -> int:
        """Return how many rows of the first group a step has; about how many, where they are counted by tokens."""
        if plan.tokens is None:
            return plan.size * plan.accumulation
        return max(1, round(plan.tokens * plan.accumulation / self.lengths.mean()))

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
        return self.collate(picked)

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
) -> list[list[Micro]]:
    """Return an epoch's steps, each a list of micro-batches, each a list of (group, row).

    The rows of step k are the same for 4 micro-batches of 2 and 1 of 8, and for 4 of 256 tokens and 1 of 1024. Groups
    after the first are dealt out in shuffled passes, `ratio` rows for each row of the first group; what is left of a
    row goes over to the next epoch. Where a data loader of the user's draws the first group's rows, its batches are the
    micro-batches.

    Args:
        held: rows of the first group that the epoch leaves out.
    """
    seed_parts = (*seed_parts, epoch)
    extra = [(each, endless_rows(each.group, mixture.sizes[each.group], seed_parts)) for each in mixture.mixed_in()]
    first_group = _first_group(mixture, plan, seed_parts, held)
    now = epoch * sum(len(own) for micro_batches in first_group for own in micro_batches)
    steps = []
    for micro_batches in first_group:
        step = []
        for own in micro_batches:
            rows = [(0, row) for row in own]
            done, now = now, now + len(rows)
            for each, rows_of_group in extra:
                rows += [next(rows_of_group) for _ in range(each.n_due(done, now))]
            step.append(rows)
        steps.append(step)
    return steps


def n_task_steps(mixture: EncodedMixture, plan: BatchPlan, n_epochs: int, seed_parts: tuple[Any, ...] = ()) -> int:
    """Return the number of optimizer steps in all epochs.

    Cost: of batches by tokens about 1 second per million rows and epoch, for each epoch is cut to be counted.
    """
    if mixture.loader is not None:
        return sum(-(-mixture.loader.n_batches(epoch) // plan.accumulation) for epoch in range(n_epochs))
    if plan.tokens is not None:
        return sum(len(_steps_of_rows(mixture, plan, (*seed_parts, epoch))) for epoch in range(n_epochs))
    return -(-mixture.sizes[0] // (plan.size * plan.accumulation)) * n_epochs


def load_steps(
    mixture: EncodedMixture,
    steps: list[list[Micro]],
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
) -> list[list[list[int]]]:
    """Return the first group's rows of each micro-batch of each step of the epoch."""
    if mixture.loader is not None:
        micro_batches = mixture.loader.batches(seed_parts[-1])
        return [micro_batches[low : low + plan.accumulation] for low in range(0, len(micro_batches), plan.accumulation)]
    steps = _steps_of_rows(mixture, plan, seed_parts, held)
    if plan.tokens is not None:
        return [list(_cut(step, mixture.lengths, plan.tokens)) for step in steps]
    return [[step[low : low + plan.size] for low in range(0, len(step), plan.size)] for step in steps]


def _steps_of_rows(
    mixture: EncodedMixture, plan: BatchPlan, seed_parts: tuple[Any, ...], held: frozenset[int] = frozenset()
) -> list[list[int]]:
    """Return the first group's rows of each step of the epoch."""
    generator = generator_for(*seed_parts, "order")
    order = [row for row in torch.randperm(mixture.sizes[0], generator=generator).tolist() if row not in held]
    sorts, step_size = mixture.sorts(plan), (mixture.rows_of_step(plan) if order else 1)
    steps: list[list[int]] = []
    window = step_size * WINDOW_STEPS if sorts else max(1, len(order))
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        if sorts and mixture.lengths is not None:
            rows = [rows[i] for i in np.argsort(mixture.lengths[rows], kind="stable").tolist()]
        if plan.tokens is not None:
            steps += _cut(rows, mixture.lengths, plan.tokens * plan.accumulation)
        else:
            steps += [rows[low : low + step_size] for low in range(0, len(rows), step_size)]
    if not sorts:
        return steps
    # where rows are counted, the steps that a window's end leaves short come last, so that the others stay whole
    short = [step for step in steps if len(step) < step_size] if plan.tokens is None else []
    whole = [step for step in steps if len(step) == step_size] if plan.tokens is None else steps
    return [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()] + short


def _cut(rows: list[int], lengths: np.ndarray, n_tokens: int) -> Iterator[list[int]]:
    """Cut rows, in their order, into lists that padded have at most `n_tokens`; a row that is longer is alone."""
    taken: list[int] = []
    longest = 0
    for row, length in zip(rows, lengths[rows].tolist(), strict=True):
        if taken and (len(taken) + 1) * max(longest, length) > n_tokens:
            yield taken
            taken, longest = [], 0
        taken.append(row)
        longest = max(longest, length)
    if taken:
        yield taken


def endless_rows(group: int, size: int, seed_parts: tuple[Any, ...]) -> Iterator[tuple[int, int]]:
    """Yield (group, row) over the rows of a group in one shuffled pass after another."""
    generator = generator_for(*seed_parts, "group", group)
    while True:
        for row in torch.randperm(size, generator=generator).tolist():
            yield group, row


def _features(objective: Objective, part: Examples, told: Callable[[int], None] | None) -> Features:
    if isinstance(part.rows, DiskRows):
        return LazyFeatures(objective, part.rows, part.task)
    return objective.encode(part.rows, part.task, told)


def _counted(mixture: Mixture, told: Callable[[int, int], None] | None) -> Callable[[int], None] | None:
    """Return what is to be called with the number of rows that were encoded since it was called last."""
    if told is None:
        return None
    parts = [part for group in mixture.groups for part in group.parts]
    n_rows, done = sum(len(part) for part in parts if not isinstance(part.rows, DiskRows)), 0

    def count(n_more: int) -> None:
        nonlocal done
        done += n_more
        told(done, n_rows)

    return count


def _lengths(features: Features) -> np.ndarray | None:
    """Return how many tokens each example has, None where examples aren't tokens."""
    if isinstance(features, TokenFeatures | LabelledFeatures | PairFeatures):
        return features.lengths
    if isinstance(features, LazyFeatures):
        return _lengths(features.objective.encode(features.rows, features.task))
    if isinstance(features, LoaderFeatures):
        return None
    if not isinstance(features[0], dict) or "input_ids" not in features[0]:
        return None
    return np.array([len(feature["input_ids"]) for feature in features])


def _as_is(batch: Batch) -> Batch:
    return batch

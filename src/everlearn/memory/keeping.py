"""A memory within its budget: which rows each task keeps when new ones come, as {task: rows}.

Rows count within what a task could keep: those in the memory, and for the task just learned the new ones after them.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch

from everlearn.errors import ConfigError, check_number, describe
from everlearn.functional.reservoir import draw_within, kept_by_reservoir
from everlearn.memory.rows import row_bytes, row_keys
from everlearn.memory.selection import allot, sample_by_bytes
from everlearn.seeds import seed_for
from everlearn.types import Rows

Kept = dict[str, list[int]]
Classes = Mapping[str, Sequence[Hashable] | None]  # task -> the class of each row, or None where there are none
DEFAULT_ROWS = 500


@dataclass(frozen=True)
class Budget:
    """How much a memory may hold: rows over all tasks, a share of each task's rows, or bytes over all tasks."""

    rows: int | None
    fraction: float | None
    n_bytes: int | None

    @classmethod
    def checked(cls, where: str, capacity: int | None, fraction: float | None, capacity_bytes: int | None) -> "Budget":
        """Return the one budget that is given, or 500 rows.

        Raises:
            ConfigError: if a number is out of range, or more than one is given.
        """
        given = {"capacity": capacity, "fraction": fraction, "capacity_bytes": capacity_bytes}
        given = {name: value for name, value in given.items() if value is not None}
        if capacity is not None:
            check_number(f"{where}.capacity", capacity, low=0)
        if fraction is not None:
            check_number(f"{where}.fraction", fraction, above=0, high=1)
        if capacity_bytes is not None:
            check_number(f"{where}.capacity_bytes", capacity_bytes, low=0)
        if len(given) > 1:
            raise ConfigError(describe(where, "has more than one budget", given, "Give one of them"))
        return cls(capacity if given else DEFAULT_ROWS, fraction, capacity_bytes)

    def of_task(self, n_new: int) -> int:
        """Return how many rows of a task a fraction is, at least one."""
        return max(1, round(self.fraction * n_new))

    def costs(self, rows: Rows) -> list[int]:
        """Return what each row takes of the budget."""
        return [1] * len(rows) if self.n_bytes is None else row_bytes(rows)


@dataclass
class Sampler:
    """Keeps a uniform sample of all rows that ever came.

    Attributes:
        n_seen: rows that came before.
        by_bytes: what a sample by bytes goes on with, empty at first; changed in place. seed: of the rows' keys, the
            same for good; limit: see `sample_by_bytes`.
    """

    budget: Budget
    n_seen: int
    by_bytes: dict[str, int]

    def keep(self, rows: Mapping[str, Rows], task: str, n_new: int, generator: torch.Generator) -> Kept:
        """Return which rows are kept now that the last `n_new` of `task` came."""
        sizes = {name: len(own) for name, own in rows.items()}
        sizes[task] -= n_new
        if self.budget.fraction is not None:
            drawn = torch.randperm(n_new, generator=generator)[: self.budget.of_task(n_new)]
            return {**{name: list(range(n)) for name, n in sizes.items()}, task: (sizes[task] + drawn).tolist()}
        if self.budget.n_bytes is None:
            return kept_by_reservoir(sizes, task, n_new, self.n_seen, self.budget.rows, generator)
        return self._keep_by_bytes(rows, generator)

    def bound(self, rows: Mapping[str, Rows], came: Mapping[str, int], generator: torch.Generator) -> Kept:
        """Return which rows are within the budget, if it was lowered since they were kept.

        Args:
            came: {task: how many rows of it came}, where that is known.
        """
        if self.budget.fraction is not None:
            most = {name: self.budget.of_task(came[name]) if name in came else len(own) for name, own in rows.items()}
            order = {name: torch.randperm(len(own), generator=generator).tolist() for name, own in rows.items()}
            return {name: sorted(own[: most[name]]) for name, own in order.items()}
        if self.budget.n_bytes is None:
            return draw_within({name: len(own) for name, own in rows.items()}, self.budget.rows, generator)
        return self._keep_by_bytes(rows, generator)

    def _keep_by_bytes(self, rows: Mapping[str, Rows], generator: torch.Generator) -> Kept:
        if not self.by_bytes:
            self.by_bytes.update(seed=int(torch.randint(2**31, (), generator=generator)), limit=2**63)
        places = [(name, i) for name, own in rows.items() for i in range(len(own))]
        keys = [seed_for(self.by_bytes["seed"], key) for own in rows.values() for key in row_keys(own)]
        costs = [cost for own in rows.values() for cost in self.budget.costs(own)]
        chosen, self.by_bytes["limit"] = sample_by_bytes(keys, costs, self.budget.n_bytes, self.by_bytes["limit"])
        kept: Kept = {name: [] for name in rows}
        for name, i in (places[place] for place in chosen):
            kept[name].append(i)
        return kept


def keep_best(
    ranked: Mapping[str, Sequence[int]], classes: Classes, costs: Mapping[str, Sequence[int]], budget: int
) -> Kept:
    """Return which rows each task keeps, best first: equal budgets for all tasks, or for each class of each task.

    Args:
        ranked: {task: its rows, best first}. costs: {task: what each row takes of the budget}.
    """
    groups: dict[tuple[str, Hashable], list[int]] = {}
    for name, order in ranked.items():
        own = classes[name]
        for row in order:
            groups.setdefault((name, None if own is None else own[row]), []).append(row)
    counts = allot([[costs[name][row] for row in rows] for (name, _), rows in groups.items()], budget)
    chosen: dict[str, set[int]] = {name: set() for name in ranked}
    for ((name, _), rows), count in zip(groups.items(), counts, strict=True):
        chosen[name].update(rows[:count])
    return {name: [row for row in order if row in chosen[name]] for name, order in ranked.items()}


def new_rows(stored: Rows, rows: Rows) -> list[int]:
    """Return which rows are not stored yet."""
    present = set(row_keys(stored))
    return [i for i, key in enumerate(row_keys(rows)) if key not in present]

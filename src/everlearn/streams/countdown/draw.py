"""Many different problems at once, each with a planted solution."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from everlearn.errors import StreamError, describe
from everlearn.streams.countdown.expression import write
from everlearn.streams.countdown.forms import count_solutions, exact_dtype
from everlearn.streams.countdown.groups import Space

SPLITS = ("train", "test")
_FEWEST_DRAWS, _MOST_DRAWS = 1 << 15, 1 << 19  # at a time
_STALE = 1e-3  # share of new problems among those drawn, below which there are hardly any more
_STALE_ROUNDS, _EMPTY_ROUNDS = 3, 8  # such rounds in a row until a size counts as dry


@dataclass(frozen=True)
class Problems:
    """Problems with the same number of numbers.

    Attributes:
        numbers: in the order in which they are asked [m, n].
        steps: of the planted solution, (operator, left, right): numbers are 0..n-1, the result of step i is n+i; every
            result is whole and not negative; int8 [m, n - 1, 3].
        targets: [m].
        n_solutions, n_without_newest: how many different solutions there are, in all and without the newest operator
            [m]; see `everlearn.streams.countdown.forms`.
    """

    numbers: np.ndarray
    steps: np.ndarray
    targets: np.ndarray
    n_solutions: np.ndarray
    n_without_newest: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, chosen: Any) -> "Problems":
        return Problems(*(getattr(self, entry.name)[chosen] for entry in fields(self)))

    def solutions(self, operators: str) -> list[str]:
        """Return the planted solutions as expressions, in which these operators may stand."""
        steps = [[(chr(sign), left, right) for sign, left, right in row] for row in self.steps.tolist()]
        return [write(one, numbers, operators) for one, numbers in zip(steps, self.numbers.tolist(), strict=True)]


def draw_problems(space: Space, n_train: int, n_test: int, seed: int) -> tuple[dict[str, list[Problems]], list[str]]:
    """Return different problems of a space, by split one entry a size, and sentences on sizes that ran dry.

    A problem is its numbers, in whatever order, and its target. A hash of it decides whether it is for training or for
    the test, so that no test problem is trained on, in this group or in another one drawn with the same numbers of
    problems, whatever the seed.

    Raises:
        StreamError: if there are too few different problems.

    Cost: 101,000 problems of 3 and 4 numbers up to 97 take 1 to 4 s, most of it to count the solutions; memory of 60
    bytes a problem, and 150 MB of draws.
    """
    share = n_test / (n_train + n_test)
    pools = [
        _Pool(space, size, share, np.random.default_rng([seed, size, *space.operators.encode()]))
        for size in space.sizes
    ]
    wanted = {"train": n_train, "test": n_test}
    while True:
        short = {split: wanted[split] - sum(pool.n_taken[split] for pool in pools) for split in SPLITS}
        open_pools = [pool for pool in pools if not pool.dry]
        if not any(short.values()) or not open_pools:
            break
        for place, pool in enumerate(open_pools):
            pool.fill({split: _share(short[split], place, len(open_pools)) for split in SPLITS})
    if any(short.values()):
        found = ", ".join(f"{wanted[split] - short[split]:,} of {wanted[split]:,} for {split}" for split in SPLITS)
        way_out = "Ask for fewer, or allow larger numbers, more targets or more sizes"
        raise StreamError(describe(f"countdown group {space.group!r}", "has too few problems", found, way_out))
    notes = [
        f"Group {space.group} ran dry with {pool.n} numbers at {sum(pool.n_taken.values()):,} different problems; more"
        f" of {' and '.join(str(other.n) for other in open_pools)} numbers make up for it."
        for pool in pools
        if pool.dry
    ]
    return {split: [pool.problems(split) for pool in pools] for split in SPLITS}, notes


def _share(total: int, place: int, n: int) -> int:
    return total * (place + 1) // n - total * place // n


@dataclass
class _Pool:
    """The problems of one size that were found so far."""

    space: Space
    n: int
    test_share: float
    rng: np.random.Generator
    dry: bool = False
    # hashes of what was taken or thrown away, sorted
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    taken: dict[str, list[Problems]] = field(default_factory=lambda: {split: [] for split in SPLITS})

    @property
    def n_taken(self) -> dict[str, int]:
        return {split: sum(map(len, parts)) for split, parts in self.taken.items()}

    def problems(self, split: str) -> Problems:
        """Return what was taken for a split."""
        parts = self.taken[split] or [draw(self.rng, 0, self.n, self.space)]
        return Problems(*(np.concatenate([getattr(part, entry.name) for part in parts]) for entry in fields(Problems)))

    def fill(self, more: dict[str, int]) -> None:
        """Take so many more of each split, or all there are; `dry` tells.

        The share of new ones among the problems that a round draws estimates how much is still unseen (Good and
        Turing); where it stays below 1 in 1,000, or nothing at all is found, the size is dry.
        """
        more = dict(more)
        n_draws, n_stale, n_empty = _FEWEST_DRAWS, 0, 0
        while any(more.values()):
            drawn = draw(self.rng, n_draws, self.n, self.space)
            hashes, first = np.unique(hash_of(drawn.numbers, drawn.targets), return_index=True)
            wanted = np.where(self._for_test(hashes), more["test"] > 0, more["train"] > 0)
            fresh = wanted & ~np.isin(hashes, self.seen, assume_unique=True)
            n_stale = n_stale + 1 if fresh.sum() < _STALE * wanted.sum() else 0
            before = dict(more)
            order = np.argsort(first[fresh])  # as drawn: which are taken doesn't depend on the hash
            self._take(drawn[first[fresh][order]], hashes[fresh][order], more)
            n_empty = n_empty + 1 if more == before else 0
            # as many draws as what is left would take at this round's yield
            needed = max(n_draws * more[split] / max(1, before[split] - more[split]) for split in SPLITS)
            n_draws = int(min(max(1.2 * needed, _FEWEST_DRAWS), _MOST_DRAWS))
            if n_stale >= _STALE_ROUNDS or n_empty >= _EMPTY_ROUNDS:
                self.dry = any(more.values())
                return

    def _take(self, found: Problems, hashes: np.ndarray, more: dict[str, int]) -> None:
        """Take of new problems what is wanted, and count it off."""
        if self.space.require_new_operator:
            found = with_difficulty(found, self.space.operators)
            needed = found.n_without_newest == 0
            self._see(hashes[~needed])
            found, hashes = found[needed], hashes[needed]
        for_test = self._for_test(hashes)
        for split, of_split in (("train", ~for_test), ("test", for_test)):
            rows = np.flatnonzero(of_split)[: more[split]]
            more[split] -= len(rows)
            self._see(hashes[rows])
            part = found[rows]
            counted = self.space.require_new_operator
            self.taken[split].append(part if counted else with_difficulty(part, self.space.operators))

    def _see(self, hashes: np.ndarray) -> None:
        self.seen = np.union1d(self.seen, hashes)

    def _for_test(self, hashes: np.ndarray) -> np.ndarray:
        return hashes < np.uint64(min(self.test_share, 1 - 2**-53) * 2.0**64)


def draw(rng: np.random.Generator, m: int, n: int, space: Space) -> Problems:
    """Draw m random trees over n numbers; return the problems whose steps and target are allowed, not counted yet.

    A step joins two of the numbers that are left, in either order, by any operator; its result is one of them
    then. All results are whole and not negative.
    """
    values = np.zeros((m, 2 * n - 1), np.int64)
    values[:, :n] = rng.integers(space.min_number, space.max_number + 1, (m, n))
    left_over = np.tile(np.arange(n, dtype=np.int8), (m, 1))
    steps = np.zeros((m, n - 1, 3), np.int8)
    signs = np.frombuffer(space.operators.encode(), np.int8)
    only_grows = set(space.operators) <= set("+*") and space.min_number > 0
    for step in range(n - 1):
        n_left, rows = n - step, np.arange(len(values))
        one, other = rng.integers(0, n_left, len(rows)), rng.integers(0, n_left - 1, len(rows))
        other += other >= one
        left, right = left_over[rows, one], left_over[rows, other]
        sign = signs[rng.integers(0, len(signs), len(rows))]
        steps[:, step] = np.stack([sign, left, right], axis=1)
        a, b = values[rows, left], values[rows, right]
        result, fine = np.zeros_like(a), np.ones(len(rows), bool)
        for operator in space.operators:
            chosen = np.flatnonzero(sign == ord(operator))
            result[chosen], fine[chosen] = _apply(operator, a[chosen], b[chosen])
        if only_grows:
            fine &= result <= space.max_target
        values[:, n + step] = result
        left_over[rows, one] = n + step
        left_over[rows, other] = left_over[rows, n_left - 1]
        values, left_over, steps = values[fine], left_over[fine], steps[fine]
    targets = values[:, -1]
    fine = (targets >= space.min_target) & (targets <= space.max_target)
    if space.require_new_operator:
        fine &= (steps[:, :, 0] == signs[-1]).any(axis=1)
    nothing = np.zeros(int(fine.sum()), np.int64)
    return Problems(values[fine, :n], steps[fine], targets[fine], nothing, nothing)


def _apply(operator: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the results of an operator, and where they are whole and not negative."""
    if operator == "/":
        quotient = a // np.maximum(b, 1)
        return quotient, (b != 0) & (quotient * b == a)
    result = {"+": np.add, "-": np.subtract, "*": np.multiply}[operator](a, b)
    return result, result >= 0


def with_difficulty(problems: Problems, operators: str) -> Problems:
    """Return the problems with their solutions counted."""
    if len(problems) == 0:
        return problems
    largest, target = int(problems.numbers.max()), int(problems.targets.max())
    dtype = exact_dtype(problems.numbers.shape[1], largest, target)
    counts = count_solutions(problems.numbers.astype(dtype), problems.targets.astype(dtype), operators)
    return Problems(problems.numbers, problems.steps, problems.targets, *counts)


def hash_of(numbers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return 64 bits that name a problem: the same for the same numbers in any order and the same target [m].

    Of two different problems with the same hash, whose chance is 1e-8 among half a million, one would be left out.
    Source: the finalizer of G. Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    hashed = _mix(targets.astype(np.uint64) + np.uint64(numbers.shape[1] << 32))
    for column in np.sort(numbers, axis=1).T:
        hashed = _mix(hashed ^ column.astype(np.uint64))
    return hashed


def _mix(values: np.ndarray) -> np.ndarray:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)

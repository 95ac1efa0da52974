"""Random draws for items that must never change: those of `random.Random`, whatever Python does to them."""

import random
from collections.abc import Sequence
from math import ceil, log
from typing import Any, TypeVar

T = TypeVar("T")


class Draws(random.Random):
    """A `random.Random` whose choices, numbers, samples and shuffles are those of Python 3.11.

    Python promises the same `random()` for a seed in all versions, not the same `choice` or `sample`. Without the
    checks of types that Python's have, these also take little more than half the time.
    """

    def choice(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        n, bits = len(items), self.getrandbits
        n_bits = n.bit_length()
        i = bits(n_bits)
        while i >= n > 0:
            i = bits(n_bits)
        return items[i]

    def randint(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return self.randrange(low, high + 1)

    def randrange(self, low: int, high: int | None = None, step: int = 1) -> int:
        """Return a whole number from `low` to below `high`; with one argument from 0 to below it."""
        if step != 1:
            return super().randrange(low, high, step)
        if high is None:
            low, high = 0, low
        n, bits = high - low, self.getrandbits
        if n < 1:
            raise ValueError(f"randrange: there is no number from {low} to below {high}")
        n_bits = n.bit_length()
        i = bits(n_bits)
        while i >= n:
            i = bits(n_bits)
        return low + i

    def sample(self, population: Sequence[T], k: int, *, counts: Sequence[int] | None = None) -> list[T]:
        """Return `k` different members in random order."""
        bits, n = self.getrandbits, len(population)
        if counts is not None or not 0 <= k <= n:
            return super().sample(population, k, counts=counts)
        if n > 21 and (k < 6 or n > 21 + 4 ** ceil(log(3 * k, 4))):  # few of many: draw again what was drawn before
            return [population[i] for i in self._different(n, k)]
        pool, chosen = list(population), []
        for left in range(n, n - k, -1):
            n_bits = left.bit_length()
            i = bits(n_bits)
            while i >= left:
                i = bits(n_bits)
            chosen.append(pool[i])
            pool[i] = pool[left - 1]
        return chosen

    def shuffle(self, items: list[Any]) -> None:
        """Put the items in random order."""
        bits = self.getrandbits
        for last in range(len(items) - 1, 0, -1):
            n_bits = (last + 1).bit_length()
            i = bits(n_bits)
            while i > last:
                i = bits(n_bits)
            items[last], items[i] = items[i], items[last]

    def _different(self, n: int, k: int) -> list[int]:
        bits, n_bits = self.getrandbits, n.bit_length()
        chosen: list[int] = []
        while len(chosen) < k:
            i = bits(n_bits)
            if i < n and i not in chosen:
                chosen.append(i)
        return chosen

"""Samples and shuffles for items that must never change: the draws of `random.Random`, whatever Python does to them.

Python promises the same `random()` for a seed in all versions, not the same `sample`. Without its checks of types these
also take little more than half the time.
"""

import random
from collections.abc import Sequence
from math import ceil, log
from typing import Any, TypeVar

T = TypeVar("T")


def sample(rng: random.Random, population: Sequence[T], k: int) -> list[T]:
    """Return `k` different members in random order: the same ones as `rng.sample` of Python 3.11."""
    bits, n = rng.getrandbits, len(population)
    if n > 21 and (k < 6 or n > 21 + 4 ** ceil(log(3 * k, 4))):  # few of many: draw again what was drawn before
        return [population[i] for i in _different(rng, n, k)]
    pool, chosen = list(population), []
    for left in range(n, n - k, -1):
        n_bits = left.bit_length()
        i = bits(n_bits)
        while i >= left:
            i = bits(n_bits)
        chosen.append(pool[i])
        pool[i] = pool[left - 1]
    return chosen


def shuffle(rng: random.Random, items: list[Any]) -> None:
    """Put the items in random order: the same one as by `rng.shuffle` of Python 3.11."""
    bits = rng.getrandbits
    for last in range(len(items) - 1, 0, -1):
        n_bits = (last + 1).bit_length()
        i = bits(n_bits)
        while i > last:
            i = bits(n_bits)
        items[last], items[i] = items[i], items[last]


def _different(rng: random.Random, n: int, k: int) -> list[int]:
    bits, n_bits = rng.getrandbits, n.bit_length()
    chosen: list[int] = []
    while len(chosen) < k:
        i = bits(n_bits)
        if i < n and i not in chosen:
            chosen.append(i)
    return chosen

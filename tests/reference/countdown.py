"""Countdown by brute force: every expression over the numbers, one after another, in fractions."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations

import numpy as np

_POINTS = [[Fraction(int(value)) for value in row] for row in np.random.default_rng(7).integers(10**6, 10**9, (2, 6))]


def trees(places: tuple[int, ...], operators: str) -> Iterator:
    """Yield every expression over these places: a place, or (operator, left, right)."""
    if len(places) == 1:
        yield places[0]
    for cut in range(1, len(places)):
        for left in trees(places[:cut], operators):
            for right in trees(places[cut:], operators):
                yield from ((operator, left, right) for operator in operators)


def value(tree, numbers) -> Fraction | None:
    """Return what a tree comes to; None where it divides by zero."""
    if isinstance(tree, int):
        return Fraction(numbers[tree])
    left, right = value(tree[1], numbers), value(tree[2], numbers)
    if left is None or right is None or (tree[0] == "/" and right == 0):
        return None
    return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[tree[0]](right)


def n_solutions(numbers: list[int], target: int, operators: str) -> int:
    """Return how many different functions of the numbers reach the target, equal numbers swapped or not."""
    n = len(numbers)
    same = [order for order in permutations(range(n)) if all(numbers[a] == numbers[b] for a, b in enumerate(order))]
    found = set()
    for order in permutations(range(n)):
        for tree in trees(order, operators):
            if value(tree, numbers) == target:
                names = [tuple(value(tree, [point[i] for i in swap]) for point in _POINTS) for swap in same]
                found.add(min(names))
    return len(found)

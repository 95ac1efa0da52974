"""The people and things that arena problems speak of, how a list of them is written, and in which order."""

import random
from collections.abc import Sequence
from itertools import permutations
from typing import TypeVar

T = TypeVar("T")

NAMES = (
    *("Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo", "Iris", "Jack", "Kate", "Leo"),
    *("Mia", "Nina", "Owen", "Paul", "Rosa", "Sam", "Tina", "Uma", "Vera", "Will", "Zoe"),
)
THINGS = (  # one word each, because a thing may be the whole answer
    *("ball", "bell", "bike", "boat", "book", "cake", "coin", "cup", "doll", "drum"),
    *("fish", "hat", "kite", "lamp", "map", "ring", "rope", "shell", "spoon", "tent"),
)
COLOURS = ("black", "blue", "brown", "gold", "green", "pink", "red", "white")

_ORDERS = [tuple(permutations(range(n))) for n in range(6)]


def in_any_order(rng: random.Random, items: Sequence[T]) -> list[T]:
    """Return up to five items in an order drawn from all of them. Cost: less than that of `rng.shuffle`."""
    return [items[i] for i in rng.choice(_ORDERS[len(items)])]


def listing(words: Sequence[str]) -> str:
    """Return the words as English lists them: `a, b and c`."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}"

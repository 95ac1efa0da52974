"""The people and things that arena problems speak of, and how a list of them is written."""

from collections.abc import Sequence

NAMES = (
    *("Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo", "Iris", "Jack", "Kate", "Leo"),
    *("Mia", "Nina", "Owen", "Paul", "Rosa", "Sam", "Tina", "Uma", "Vera", "Will", "Zoe"),
)
THINGS = (  # one word each, because a thing may be the whole answer
    *("ball", "bell", "bike", "boat", "book", "cake", "coin", "cup", "doll", "drum"),
    *("fish", "hat", "kite", "lamp", "map", "ring", "rope", "shell", "spoon", "tent"),
)
COLOURS = ("black", "blue", "brown", "gold", "green", "pink", "red", "white")


def listing(words: Sequence[str]) -> str:
    """Return the words as English lists them: `a, b and c`."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}"

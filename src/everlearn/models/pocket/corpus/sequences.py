"""Rows of numbers, letters and words with a rule: what comes next, what is missing, what is the step."""

from random import Random

from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import COLORS, DAYS, FRUITS, PETS

NEXT = (
    "{row}, ...",
    "What comes after {row}?",
    "Give the next number: {row}",
    "{row} ... what now?",
    "Look at {row}. What follows?",
    "The list {row} goes on with",
    "Next in line after {row}?",
    "Sequence {row}; the next term",
    "Numbers: {row}. One more, please.",
    "Keep going: {row}",
    "Guess what I write next: {row}",
    "Extend {row} by one.",
    "{row} and then?",
)
GAP = (
    "Fill the blank: {row}",
    "Which one is missing in {row}?",
    "Find the gap _ in {row}.",
    "{row} - what is hidden?",
    "Replace the _ : {row}",
)
STEP = (
    "By how much does each grow in {row}?",
    "What is added each time in {row}?",
    "The step of {row}",
)
TEMPLATES = NEXT + GAP + STEP
SEPARATORS = (", ", ", ", ", ", ", ", " ", "; ", " - ", " | ", " -> ")


def draw(rng: Random, level: int) -> Item:
    """Return one row with a question; rules and numbers get harder with `level`."""
    if rng.random() < 0.1:
        return _cycle(rng)
    kind = rng.choices(("plain", "times", "fibonacci", "alternate", "grow"), (4, 2.5, 2, 3, 1 if level > 2 else 0))[0]
    row = row_of(rng, kind, level, rng.randint(4, 6) + (kind in ("alternate", "fibonacci")))
    separator = rng.choice(SEPARATORS)
    if kind == "plain" and row[1] > row[0] and rng.random() < 0.08:
        return Item(rng.choice(STEP).format(row=separator.join(map(str, row))), str(row[1] - row[0]))
    if rng.random() < 0.15:
        hidden = rng.randrange(1, len(row))
        shown = [str(x) if i != hidden else "_" for i, x in enumerate(row)]
        return Item(rng.choice(GAP).format(row=separator.join(shown)), str(row[hidden]))
    return Item(rng.choice(NEXT).format(row=separator.join(map(str, row[:-1]))), str(row[-1]))


def row_of(rng: Random, kind: str, level: int, n: int) -> list[int]:
    """Return n terms of a rule: steps, factors, sums of two terms, two rules in turn, or growing steps."""
    if kind == "plain":
        step = rng.randint(1, (5, 10, 15, 25, 40)[level - 1])
        start = rng.randint(0, 10 * level)
        row = [start + i * step for i in range(n)]
        return row if rng.random() < 0.7 else row[::-1]
    if kind == "times":
        factor = rng.choice((2, 2, 2, 3, 3, 4, 5) if level > 1 else (2, 2, 3))
        row = [rng.randint(1, 2 + 2 * level)]
        while len(row) < n and row[-1] * factor < 2500:
            row.append(row[-1] * factor)
        return row if rng.random() < 0.75 else row[::-1]
    if kind == "fibonacci":
        row = [rng.randint(1, 2 + level), rng.randint(1, 3 + 2 * level)]
        while len(row) < n:
            row.append(row[-1] + row[-2])
        return row
    if kind == "grow":
        first, more = rng.randint(1, 5), rng.randint(1, 3)
        row = [rng.randint(0, 20)]
        while len(row) < n:
            row.append(row[-1] + first + more * (len(row) - 1))
        return row
    return _alternating(rng, level, n)


def _alternating(rng: Random, level: int, n: int) -> list[int]:
    size = (4, 6, 10, 15, 20)[level - 1]
    if rng.random() < 0.55:
        up, down = rng.randint(2, size + 2), rng.randint(1, size)
        row = [rng.randint(down + 5, 15 + 8 * level)]
        while len(row) < n:
            row.append(row[-1] + (up if len(row) % 2 else -down))
        return row if min(row) >= 0 else [x - min(row) for x in row]
    a, b = rng.randint(0, 8 * level), rng.randint(0, 8 * level)
    da, db = rng.randint(0, size), rng.randint(1, size)
    return [(a + i // 2 * da) if i % 2 == 0 else (b + i // 2 * db) for i in range(n)]


def _cycle(rng: Random) -> Item:
    pool = rng.choice((COLORS, PETS, FRUITS, list("ABCDEFGH"), DAYS))
    if pool is DAYS:
        start = rng.randrange(7)
        row = [DAYS[(start + i) % 7] for i in range(rng.randint(3, 5))]
    else:
        words = rng.sample(pool, rng.randint(2, 3))
        row = [words[i % len(words)] for i in range(rng.randint(5, 8))]
    return Item(rng.choice(NEXT).format(row=rng.choice(SEPARATORS).join(row[:-1])), row[-1])

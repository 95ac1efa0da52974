"""Copy, turn round, pick by place: the model's handling of what stands in its prompt."""

from random import Random

from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import (
    CITIES,
    COLORS,
    FRUITS,
    JOBS,
    NAMES,
    ORDINALS,
    PETS,
    SPORTS,
    THINGS,
    TOOLS,
)

COPY = ("Repeat: {row}", "Copy this: {row}", "Say after me: {row}", "Write again: {row}", "Echo {row}")
TURN = ("Reverse: {row}", "Say backwards: {row}", "Turn round: {row}", "From last to first: {row}")
PICK = (
    "Which word is {kth} in: {row}?",
    "Take word number {k} of {row}.",
    "{row}: the {kth} one",
    "Give the {kth} of {row}.",
    "In the list {row}, what stands at place {k}?",
)
LAST = ("What is the last word of {row}?", "Last of {row}", "How does {row} end?")
AFTER = ("In {row}, what comes right after {x}?", "Which one follows {x} in {row}?", "{row}: the one after {x}")
ODD = ("Which does not fit: {row}?", "Find the odd one: {row}", "One is different: {row}", "Strange one among {row}")
LENGTH = ("How many words are in {row}?", "Count these: {row}", "The number of words: {row}")
SAME = ("Which word is there twice: {row}?", "Find the double: {row}")
TEMPLATES = COPY + TURN + PICK + LAST + AFTER + ODD + LENGTH + SAME
POOLS = (NAMES, THINGS, PETS, COLORS, FRUITS, JOBS, SPORTS, CITIES, TOOLS)


def draw(rng: Random, level: int) -> Item:
    """Return one item; rows grow with `level`."""
    pool = rng.choice(POOLS)
    n = rng.randint(2, min(3 + level, 7))
    words = [str(rng.randint(0, 99)) for _ in range(n)] if rng.random() < 0.2 else rng.sample(pool, n)
    row = rng.choice((", ", " ", ", ")).join(words)
    kind = rng.randrange(8)
    if kind == 0:
        return Item(rng.choice(COPY).format(row=row), row)
    if kind == 1:
        separator = ", " if ", " in row else " "
        return Item(rng.choice(TURN).format(row=row), separator.join(words[::-1]))
    if kind == 2:
        k = rng.randrange(min(n, 6))
        return Item(rng.choice(PICK).format(row=row, k=k + 1, kth=ORDINALS[k]), words[k])
    if kind == 3:
        return Item(rng.choice(LAST).format(row=row), words[-1])
    if kind == 4 and len(set(words)) == n:
        k = rng.randrange(n - 1)
        return Item(rng.choice(AFTER).format(row=row, x=words[k]), words[k + 1])
    if kind == 5:
        odd, rest = rng.sample((NAMES, PETS, COLORS, JOBS, SPORTS, CITIES, TOOLS), 2)
        stranger = rng.choice(odd)
        words = [*rng.sample(rest, max(3, n - 1)), stranger]
        rng.shuffle(words)
        return Item(rng.choice(ODD).format(row=", ".join(words)), stranger)
    if kind == 6:
        words = rng.sample(pool, n)
        double = rng.choice(words)
        words.insert(rng.randint(0, n), double)
        return Item(rng.choice(SAME).format(row=", ".join(words)), double)
    return Item(rng.choice(LENGTH).format(row=row), str(n))

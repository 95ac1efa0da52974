"""Drills of memory: long rows said again, and tables in which many keys are looked up. Most of their text is answer."""

import itertools
from random import Random

from everlearn.models.pocket.corpus import words as w
from everlearn.models.pocket.corpus.item import Item

ECHO = (
    "{row} - once more",
    "Row: {row}. The same row",
    "{row}\nSame again",
    "Keep in mind: {row}\nRecall it",
    "Hear this: {row}. Now you",
    "{row} (say all)",
    "Memory: {row}. Read it out",
    "Learn by heart: {row}.",
)
TABLE = (
    "{table}. For {keys}",
    "Table: {table}\nLook up {keys}",
    "{table}\nNow {keys}",
    "{table} | {keys}",
    "We noted {table}. What about {keys}?",
    "Given {table}, read off {keys}",
)
CHAIN = (
    "{links}. From {first} on",
    "Links: {links}\nStart at {first}, go all the way",
    "{links}\nFollow from {first}",
    "Steps are {links}. Walk from {first}",
)
TEMPLATES = ECHO + TABLE + CHAIN
PAIRS = ("{k} {v}", "{k}: {v}", "{k} has {v}", "{k} = {v}", "{k} - {v}", "{k} with {v}", "{k} got the {v}")
LINKS = ("{k} to {v}", "{k} -> {v}", "{k} then {v}", "after {k} {v}", "{k} next {v}")
SEPARATORS = (", ", "; ", " ", "\n", " | ", ", ", ". ")
POOL = (
    *(w.NAMES + w.THINGS + w.PETS + w.COLORS + w.DRINKS + w.SPORTS + w.JOBS + w.TOOLS + w.MUSIC + w.CITIES),
    *(w.VEHICLES + w.DAYS + w.PLACES),
)


def draw(rng: Random, level: int) -> Item:
    """Return one drill; rows and tables lengthen with `level`."""
    kind = rng.random()
    if kind < 0.3:
        return _echo(rng, level)
    if kind < 0.75:
        return _table(rng, level)
    return _chain(rng, level)


def _some(rng: Random, n: int) -> list[str]:
    if rng.random() < 0.35:
        return rng.sample(w.NAMES, n)
    return [str(rng.randint(0, 99)) if rng.random() < 0.15 else rng.choice(POOL) for _ in range(n)]


def _echo(rng: Random, level: int) -> Item:
    row = rng.choice((" ", ", ")).join(_some(rng, rng.randint(4, 8 + 3 * level)))
    return Item(rng.choice(ECHO).format(row=row), row)


def _table(rng: Random, level: int) -> Item:
    n = rng.randint(2, 4 + 2 * level)
    keys = rng.sample(w.NAMES if rng.random() < 0.6 else sorted(set(POOL)), n)
    values = _some(rng, n)
    pair = rng.choice(PAIRS)
    table = rng.choice(SEPARATORS).join(pair.format(k=k, v=v) for k, v in zip(keys, values, strict=True))
    asked = rng.sample(range(n), rng.randint(1, n))
    if pair == PAIRS[0] and rng.random() < 0.5:  # the other way round: from the value to its key
        keys, values = (values, keys) if len(set(values)) == n else (keys, values)
    return Item(
        rng.choice(TABLE).format(table=table, keys=", ".join(keys[i] for i in asked)),
        ", ".join(values[i] for i in asked),
    )


def _chain(rng: Random, level: int) -> Item:
    stops = rng.sample(w.NAMES if rng.random() < 0.7 else sorted(set(POOL)), rng.randint(3, 4 + level))
    link = rng.choice(LINKS)
    links = [link.format(k=k, v=v) for k, v in itertools.pairwise(stops)]
    rng.shuffle(links)
    question = rng.choice(CHAIN).format(links=rng.choice(SEPARATORS).join(links), first=stops[0])
    return Item(question, ", ".join(stops))

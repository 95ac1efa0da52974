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
    "{table}. For {key}",
    "Table: {table}\nLook up {key}",
    "{table}\nNow {key}",
    "{table} | {key}",
    "We noted {table}. What about {key}?",
    "Given {table}, read off {key}",
)
ASK = ("For {key}", "Look up {key}", "Now {key}", "And {key}", "What about {key}?", "Read off {key}", "{key}?")
CHAIN = (
    "{links}. From {first} on",
    "Links: {links}\nStart at {first}, go all the way",
    "{links}\nFollow from {first}",
    "Steps are {links}. Walk from {first}",
)
TEMPLATES = ECHO + TABLE + ASK + CHAIN
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
    if kind < 0.4:
        return _echo(rng, level)
    if kind < 0.8 or level == 1:
        return _look_up(rng, level)
    return _chain(rng, level)


def _some(rng: Random, n: int) -> list[str]:
    if rng.random() < 0.35:
        return rng.sample(w.NAMES, n)
    return [str(rng.randint(0, 99)) if rng.random() < 0.15 else rng.choice(POOL) for _ in range(n)]


def _echo(rng: Random, level: int) -> Item:
    row = rng.choice((" ", ", ")).join(_some(rng, rng.randint(3, 4 + 4 * level)))
    return Item(rng.choice(ECHO).format(row=row), row)


def _look_up(rng: Random, level: int) -> Item:
    n = rng.randint(2, 3 + level)
    keys = rng.sample(w.NAMES if rng.random() < 0.6 else sorted(set(POOL)), n)
    values = _some(rng, n)
    pair = rng.choice(PAIRS)
    table = rng.choice(SEPARATORS).join(pair.format(k=k, v=v) for k, v in zip(keys, values, strict=True))
    if pair == PAIRS[0] and level > 1 and rng.random() < 0.5 and len(set(values)) == n:
        keys, values = values, keys  # the other way round: from the value to its key
    first, *others = rng.sample(range(n), n) + rng.sample(range(n), n)
    question = rng.choice(TABLE).format(table=table, key=keys[first])
    ask = rng.choice(ASK)
    return Item(question, values[first], more=tuple((ask.format(key=keys[i]), values[i]) for i in others))


def _chain(rng: Random, level: int) -> Item:
    stops = rng.sample(w.NAMES if rng.random() < 0.7 else sorted(set(POOL)), rng.randint(3, 4 + level))
    link = rng.choice(LINKS)
    links = [link.format(k=k, v=v) for k, v in itertools.pairwise(stops)]
    rng.shuffle(links)
    question = rng.choice(CHAIN).format(links=rng.choice(SEPARATORS).join(links), first=stops[0])
    return Item(question, ", ".join(stops))

"""Drills of memory: rows said again, and tables and facts in which every key is looked up."""

import itertools
from random import Random

from everlearn.models.pocket.corpus import words as w
from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.puzzles import TOPICS

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
ASK = ("For {key}", "Look up {key}", "Now {key}", "And {key}", "What about {key}?", "Read off {key}", "{key}?")
ASK_PAIR = ("Pair of {key}", "Row of {key}", "All with {key}", "{key} and its partner", "Where {key} stands")
CHAIN = (
    "{links}. From {first} on",
    "Links: {links}\nStart at {first}, go all the way",
    "{links}\nFollow from {first}",
    "Steps are {links}. Walk from {first}",
)
TEMPLATES = ECHO + ASK + ASK_PAIR + CHAIN
PAIRS = ("{k} {v}", "{k}: {v}", "{k} has {v}", "{k} = {v}", "{k} - {v}", "{k} with {v}", "{k} got the {v}")
LINKS = ("{k} to {v}", "{k} -> {v}", "{k} then {v}", "after {k} {v}", "{k} next {v}")
SEPARATORS = (", ", "; ", " ", "\n", " | ", ". ")
POOL = sorted(
    {*w.THINGS, *w.PETS, *w.COLORS, *w.DRINKS, *w.SPORTS, *w.JOBS, *w.TOOLS, *w.MUSIC, *w.CITIES, *w.VEHICLES, *w.DAYS}
)


def draw(rng: Random, level: int) -> Item:
    """Return one drill; rows and tables lengthen with `level`."""
    kind = rng.random()
    if kind < 0.15:
        return _echo(rng, level)
    if kind < 0.5:
        return _table(rng, 2 + level)
    if kind < 0.85 or level == 1:
        return _facts(rng, level)
    return _chain(rng, level)


def draw_pairs(rng: Random) -> Item:
    """Return two or three pairs, to be told twice more in any order: each key is followed by its value."""
    n = rng.randint(2, 3)
    keys, values = rng.sample(w.NAMES, n), rng.sample([*w.THINGS, *w.PETS, *w.COLORS, *w.DRINKS, *w.JOBS], n)
    rows = ", ".join(f"{k} {v}" for k, v in zip(keys, values, strict=True))
    told = [(keys[i], values[i]) for _ in range(2) for i in rng.sample(range(n), n)]
    return Item(f"{rows}\n {told[0][0]}", told[0][1], more=tuple(told[1:]))


def _table(rng: Random, n_most: int) -> Item:
    """Return a table of 2 to `n_most` pairs in which every key is looked up: for its pair, or for its value alone."""
    keys, values = _keys_and_values(rng, rng.randint(2, n_most))
    pair = rng.choice(PAIRS)
    rows = [pair.format(k=k, v=v) for k, v in zip(keys, values, strict=True)]
    table = rng.choice(SEPARATORS).join(rows)
    whole = rng.random() < 0.5
    if not whole and pair == PAIRS[0] and rng.random() < 0.3:
        keys, values = values, keys  # the other way round: from the value to its key
    ask = rng.choice(ASK_PAIR if whole else ASK)
    asked = [
        (ask.format(key=keys[i]), rows[i] if whole else values[i]) for i in rng.sample(range(len(keys)), len(keys))
    ]
    return _all_asked(table, asked)


def _keys_and_values(rng: Random, n: int) -> tuple[list[str], list[str]]:
    if rng.random() < 0.75:
        return rng.sample(w.NAMES, n), rng.sample(POOL, n)
    words = rng.sample(POOL, 2 * n)
    return words[:n], words[n:]


def _all_asked(facts: str, asked: list[tuple[str, str]]) -> Item:
    (question, answer), *more = asked
    return Item(f"{facts}\n{question}", answer, more=tuple(more))


def _echo(rng: Random, level: int) -> Item:
    row = rng.choice((" ", ", ")).join(rng.choices([*w.NAMES, *POOL], k=rng.randint(3, 4 + 3 * level)))
    return Item(rng.choice(ECHO).format(row=row), row)


def _facts(rng: Random, level: int) -> Item:
    """Who has what, told straight; every person or thing is asked for."""
    n = rng.randint(2, 1 + level)
    things, has, _, who, what = rng.choice(TOPICS)
    people, mine = rng.sample(w.NAMES, n), rng.sample(things, n)
    facts = rng.choice((". ", ". ", "; ")).join(has.format(p=p, t=t) for p, t in zip(people, mine, strict=True))
    asked = []
    for i in rng.sample(range(n), n):
        if rng.random() < 0.5:
            asked.append((who.format(t=mine[i]), people[i]))
        else:
            asked.append((what.format(p=people[i]), mine[i]))
    return _all_asked(f"{facts}.", asked)


def _chain(rng: Random, level: int) -> Item:
    stops = rng.sample(w.NAMES if rng.random() < 0.7 else POOL, rng.randint(3, 4 + level))
    links = [rng.choice(LINKS).format(k=k, v=v) for k, v in itertools.pairwise(stops)]
    rng.shuffle(links)
    question = rng.choice(CHAIN).format(links=rng.choice(SEPARATORS).join(links), first=stops[0])
    return Item(question, ", ".join(stops))

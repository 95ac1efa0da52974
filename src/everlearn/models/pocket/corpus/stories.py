"""Short stories with quantities: things come and go, people compare and share what they have."""

from random import Random

from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import NAMES, NUMBER_WORDS, PLACES, THINGS, capital, plural

STARTS = (
    "{name} has got {n} {things}.",
    "{name} owned {n} {things}.",
    "At first {name} had {n} {things}.",
    "In the morning there were {n} {things} on the table of {name}.",
    "{name} started the day with {n} {things}.",
    "There are {n} {things} in the bag of {name}.",
    "{name} keeps {n} {things} at home.",
    "{n} {things} belong to {name}.",
    "{name} collected {n} {things}.",
    "On a shelf {name} has {n} {things}.",
)
GAINS = (
    "{name} buys another {n}.",
    "{friend} gives {name} {n}.",
    "Then {name} finds {n} {things}.",
    "{n} more come in.",
    "{name} gets {n} from {friend}.",
    "Later {name} picks up {n} new {things}.",
    "{friend} brings {n} {things} for {name}.",
    "{name} wins {n} {things}.",
    "After that {n} {things} are added.",
    "{name} makes {n} more {things}.",
)
LOSSES = (
    "{name} hands {n} over to {friend}.",
    "{name} loses {n} of them.",
    "{n} {things} break.",
    "Then {name} sells {n} {things}.",
    "{friend} takes {n} of them.",
    "{name} drops {n} {things} on the way to the {place}.",
    "{n} of the {things} are gone now.",
    "{name} throws {n} away.",
    "{name} leaves {n} {things} at the {place}.",
    "{name} uses up {n} of them.",
)
DOUBLES = ("Then the number doubles.", "{name} now gets as many again.", "{friend} doubles what {name} has.")
HALVES = ("{name} loses half of them.", "Half of the {things} are sold.", "{name} gives half to {friend}.")
ENDS = (
    "How many {things} are with {name} now?",
    "How many {things} are there in the end?",
    "How many does {name} have at last?",
    "What is the number of {things} now?",
    "Count the {things} of {name}.",
    "Tell how many {things} remain.",
    "{name} is left with how many {things}?",
    "How many {things} at the end?",
)
GROUPS = (
    "{name} has {m} bags with {n} {things} in each. How many {things} is that?",
    "Each of {m} children gets {n} {things}. How many {things} are needed?",
    "There are {m} rows of {n} {things} at the {place}. How many {things} in all?",
    "{name} packs {n} {things} a day for {m} days. How many {things} are packed?",
    "One box holds {n} {things}. How many {things} do {m} boxes hold?",
    "{m} friends bring {n} {things} each to the {place}. What is the total?",
    "A {thing} costs {n} coins. What do {m} {things} cost?",
)
GROUP_MORE = ("Then {k} more are found.", "And {k} extra {things} lie beside them.", "{name} adds {k}.")
GROUP_LESS = ("But {k} of them are lost.", "{name} then gives away {k}.", "{k} are broken.")
GROUP_ENDS = ("How many are there now?", "How many now?", "And now, how many?")
SHARES = (
    "{name} shares {total} {things} equally among {m} friends. How many does each get?",
    "{total} {things} go into {m} boxes, the same number in each. How many in one box?",
    "{m} people split {total} {things} fairly. What is the part of one?",
    "{total} {things} are put in bags of {m}. How many bags are filled?",
)
PAIRS = (
    "{name} has got {n} {things}. {friend} has {k} more than {name}. {ask}",
    "{name} counts {n} {things}, and {friend} counts {k} more. {ask}",
    "With {k} {things} more than {name}, {friend} is happy. {name} has {n}. {ask}",
)
PAIRS_LESS = (
    "{name} has got {n} {things}. {friend} has {k} fewer than {name}. {ask}",
    "{name} found {n} {things}, and {friend} found {k} fewer. {ask}",
    "{friend} owns {k} {things} less than {name}, who owns {n}. {ask}",
)
PAIRS_TIMES = (
    "{name} has got {n} {things}. {friend} has {k} times as many. {ask}",
    "{friend} has {k} times the {things} of {name}. {name} has {n}. {ask}",
)
ASK_FRIEND = ("How many does {friend} have?", "What is the count for {friend}?", "How many {things} for {friend}?")
ASK_BOTH = ("How many do both have together?", "How many {things} in total?", "What do they have in all?")
TEMPLATES = STARTS + GAINS + LOSSES + DOUBLES + HALVES + ENDS + GROUPS + GROUP_MORE + GROUP_LESS
TEMPLATES += GROUP_ENDS + SHARES
TEMPLATES += PAIRS + PAIRS_LESS + PAIRS_TIMES + ASK_FRIEND + ASK_BOTH
SIZES = {1: 10, 2: 20, 3: 40, 4: 80, 5: 150}


def draw(rng: Random, level: int) -> Item:
    """Return one story; the number of events and the size of the numbers grow with `level`."""
    kind = rng.random()
    words = _words(rng)
    if kind < 0.55:
        return _events(rng, level, words)
    if kind < 0.78:
        return _groups(rng, level, words)
    return _pair(rng, level, words)


def _words(rng: Random) -> dict[str, str]:
    name, friend = rng.sample(NAMES, 2)
    thing = rng.choice(THINGS)
    return {"name": name, "friend": friend, "thing": thing, "things": plural(thing), "place": rng.choice(PLACES)}


def _number(rng: Random, value: int) -> str:
    return NUMBER_WORDS[value] if 1 < value <= 12 and rng.random() < 0.12 else str(value)


def _events(rng: Random, level: int, words: dict[str, str]) -> Item:
    size = SIZES[level]
    total = rng.randint(2, size)
    parts, steps = [capital(rng.choice(STARTS).format(n=_number(rng, total), **words))], []
    for _ in range(rng.randint(1, min(4, level))):
        kind = rng.random()
        n = rng.randint(1, size if rng.random() < 0.4 else 10)
        if kind < 0.08 and total <= 60:
            parts.append(rng.choice(DOUBLES).format(**words))
            steps.append(f"{total} * 2 = {2 * total}")
            total *= 2
        elif kind < 0.16 and total % 2 == 0 and total > 0:
            parts.append(rng.choice(HALVES).format(**words))
            steps.append(f"{total} / 2 = {total // 2}")
            total //= 2
        elif kind < 0.60 and total > n:
            parts.append(capital(rng.choice(LOSSES).format(n=_number(rng, n), **words)))
            steps.append(f"{total} - {n} = {total - n}")
            total -= n
        else:
            parts.append(capital(rng.choice(GAINS).format(n=_number(rng, n), **words)))
            steps.append(f"{total} + {n} = {total + n}")
            total += n
    parts.append(rng.choice(ENDS).format(**words))
    return Item(" ".join(parts), str(total), "; ".join(steps))


def _groups(rng: Random, level: int, words: dict[str, str]) -> Item:
    m, n = rng.randint(2, 3 + 2 * level), rng.randint(2, 3 + 2 * level)
    if rng.random() < 0.3:
        question = rng.choice(SHARES).format(m=m, total=m * n, **words)
        return Item(question, str(n), f"{m * n} / {m} = {n}")
    template = rng.choice(GROUPS)
    text, total = capital(template.format(m=m, n=n, **words)), m * n
    steps = f"{m} * {n} = {total}"
    head, _, ask = template.rpartition(". ")
    if level > 1 and "{m}" not in ask and rng.random() < 0.75:
        k = rng.randint(1, min(total - 1, SIZES[level]))
        more = rng.random() < 0.5
        middle = rng.choice(GROUP_MORE if more else GROUP_LESS).format(k=k, **words)
        text = f"{capital(head.format(m=m, n=n, **words))}. {middle} {rng.choice(GROUP_ENDS)}"
        new = total + k if more else total - k
        steps += f"; {total} {'+' if more else '-'} {k} = {new}"
        total = new
    return Item(text, str(total), steps)


def _pair(rng: Random, level: int, words: dict[str, str]) -> Item:
    n, kind = rng.randint(2, SIZES[level]), rng.random()
    if kind < 0.4:
        k, templates = rng.randint(1, min(SIZES[level], 40)), PAIRS
        other, steps = n + k, f"{n} + {k} = {n + k}"
    elif kind < 0.75:
        k, templates = rng.randint(1, n - 1), PAIRS_LESS
        other, steps = n - k, f"{n} - {k} = {n - k}"
    else:
        n, k, templates = rng.randint(2, 4 + 3 * level), rng.randint(2, 3 + level // 2), PAIRS_TIMES
        other, steps = n * k, f"{n} * {k} = {n * k}"
    both = rng.random() < 0.5
    ask = rng.choice(ASK_BOTH if both else ASK_FRIEND).format(**words)
    question = rng.choice(templates).format(n=n, k=k, ask=ask, **words)
    if both:
        return Item(question, str(n + other), f"{steps}; {n} + {other} = {n + other}")
    return Item(question, str(other), steps)

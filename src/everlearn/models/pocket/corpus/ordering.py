"""Chains of comparisons, in order or shuffled, some told backwards: who is on top, last, at place k, or before whom."""

from dataclasses import dataclass
from itertools import pairwise
from random import Random

from everlearn.models.pocket.corpus.item import Item
from everlearn.models.pocket.corpus.words import COLORS, FRUITS, JOBS, NAMES, ORDINALS, PETS, VEHICLES, joined


@dataclass(frozen=True)
class Scale:
    """How an order is told: `over`/`under` between two, `top`/`bottom` for the ends, `beings` for who is ordered."""

    over: tuple[str, ...]
    under: tuple[str, ...]
    top: str
    bottom: str
    beings: str = "names"


SCALES = (
    Scale(("{a} is wider than {b}",), ("{a} is narrower than {b}",), "widest", "narrowest", "any"),
    Scale(("{a} runs quicker than {b}", "{a} outruns {b}"), ("{a} is outrun by {b}",), "quickest", "slowest"),
    Scale(("{a} is heavier than {b}",), ("{a} is lighter than {b}",), "heaviest", "lightest", "any"),
    Scale(
        ("{a} has more money than {b}", "{a} earns more than {b}"),
        ("{a} has less money than {b}",),
        "richest",
        "poorest",
    ),
    Scale(("{a} is braver than {b}",), ("{a} is more timid than {b}",), "bravest", "most timid"),
    Scale(("{a} is bigger than {b}",), ("{a} is smaller than {b}",), "biggest", "smallest", "any"),
    Scale(("{a} stands above {b}", "{a} is above {b}"), ("{a} is below {b}",), "highest", "lowest", "any"),
    Scale(("{a} came before {b}", "{a} arrived before {b}"), ("{a} came after {b}",), "first", "last"),
    Scale(("{a} is ahead of {b}", "{a} leads {b}"), ("{a} is behind {b}", "{a} follows {b}"), "first", "last", "any"),
    Scale(
        ("{a} scored more than {b}", "{a} beats {b}"), ("{a} scored less than {b}", "{a} lost to {b}"), "best", "worst"
    ),
    Scale(("{a} costs more than {b}",), ("{a} costs less than {b}",), "dearest", "cheapest", "things"),
    Scale(("{a} > {b}",), ("{a} < {b}",), "greatest", "least", "any"),
    Scale(("{a} is wiser than {b}",), ("{a} is less wise than {b}",), "wisest", "least wise"),
    Scale(("{a} tops {b}", "{a} outdoes {b}"), ("{a} trails {b}",), "top", "bottom", "any"),
    Scale(("{a} has seen more years than {b}",), ("{a} has seen fewer years than {b}",), "oldest", "youngest"),
    Scale(("{a} looks down on {b}", "{a} towers over {b}"), ("{a} looks up to {b}",), "tallest", "shortest"),
    Scale(("{a} is warmer than {b}",), ("{a} is colder than {b}",), "warmest", "coldest", "any"),
    Scale(("{a} is louder than {b}",), ("{a} is quieter than {b}",), "loudest", "quietest", "any"),
)
TOP = (
    "Who is the {top}?",
    "Which one is {top}?",
    "The {top} of all is who?",
    "Name the {top} one.",
    "Tell me the {top}.",
    "Find the {top} of them.",
    "{top}?",
    "Who of them is {top}?",
)
PLACE = (
    "Who takes place {k} from the {top}?",
    "Counting from the {top}, who is number {k}?",
    "Who is the {kth}, with the {top} as number 1?",
    "Starting at the {top}, name number {k}.",
    "Place {k} if the {top} has place 1?",
)
PAIR = (
    "Of {a} and {b}, who is nearer to the {top}?",
    "{a} or {b}: who comes nearer to {top}?",
    "Pick the one closer to the {top} end: {a} or {b}.",
)
LIST = (
    "List all from {top} to {bottom}.",
    "Put them in order, {top} to {bottom}.",
    "Write the whole order, {top} one to {bottom} one.",
    "Sort them: {top} to {bottom}.",
)
COUNT = ("How many are between {a} and {b}?", "How many stand between {a} and {b}?")
INTRO = ("", "", "", "Here is what we know. ", "Look at these facts: ", "A puzzle. ", "Read: ", "Notes say: ")
BONDS = (". ", ". ", ". ", "; ", ", ", "\n", ", and ")
TEMPLATES = TOP + PLACE + PAIR + LIST + COUNT + tuple(text for scale in SCALES for text in scale.over + scale.under)


def draw(rng: Random, level: int) -> Item:
    """Return one ordering problem; chains lengthen, shuffle and turn with `level`."""
    scale = rng.choice(SCALES)
    n = rng.randint(2 if level == 1 else 3, min(7, 2 + level))
    order = rng.sample(_beings(rng, scale.beings), n)
    facts = _facts(rng, level, scale, order)
    bond = rng.choice(BONDS)
    text = rng.choice(INTRO) + bond.join(facts) + ("" if bond == "\n" else ".") + rng.choice((" ", " ", "\n"))
    question, answer = _ask(rng, level, scale, order)
    more = tuple(_ask(rng, level, scale, order) for _ in range(rng.randint(1, 4)))
    return Item(text + question, answer, more=more)


def _beings(rng: Random, kind: str) -> list[str]:
    if kind == "names" or (kind == "any" and rng.random() < 0.6):
        return NAMES
    if rng.random() < 0.2:
        return [f"the {color} {noun}" for noun in (rng.choice(VEHICLES + PETS),) for color in COLORS]
    pool = rng.choice((PETS, FRUITS, VEHICLES, JOBS))
    return [f"the {noun}" for noun in pool]


def _facts(rng: Random, level: int, scale: Scale, order: list[str]) -> list[str]:
    backwards = (0.0, 0.1, 0.25, 0.35, 0.4)[level - 1]
    mixed = rng.random() < 0.5
    over, under = rng.choice(scale.over), rng.choice(scale.under)
    flip_all = rng.random() < 0.3
    facts = []
    pairs = list(pairwise(order))
    if level >= 4 and len(order) > 3 and rng.random() < 0.3:
        i, j = sorted(rng.sample(range(len(order)), 2))
        if j - i > 1:
            pairs.append((order[i], order[j]))
    for high, low in pairs:
        if flip_all != (mixed and rng.random() < backwards):
            facts.append(under.format(a=low, b=high))
        else:
            facts.append(over.format(a=high, b=low))
    if rng.random() < (0.3, 0.5, 0.65, 0.8, 0.85)[level - 1]:
        rng.shuffle(facts)
    elif rng.random() < 0.3:
        facts.reverse()
    return facts


def _ask(rng: Random, level: int, scale: Scale, order: list[str]) -> tuple[str, str]:
    up = rng.random() < 0.5
    top, bottom = (scale.top, scale.bottom) if up else (scale.bottom, scale.top)
    ranked = order if up else order[::-1]
    words = {"top": top, "bottom": bottom}
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(TOP).format(**words), ranked[0]
    if kind < 0.63:
        k = rng.randint(1, min(len(ranked), 6, 1 + level))
        return rng.choice(PLACE).format(k=k, kth=ORDINALS[k - 1], **words), ranked[k - 1]
    if kind < 0.78:
        a, b = rng.sample(ranked, 2)
        return rng.choice(PAIR).format(a=a, b=b, **words), min(a, b, key=ranked.index)
    if kind < 0.97:
        answer = joined(ranked) if rng.random() < 0.2 else rng.choice((", ", " ")).join(ranked)
        return rng.choice(LIST).format(**words), answer
    a, b = rng.sample(ranked, 2)
    return rng.choice(COUNT).format(a=a, b=b), str(abs(ranked.index(a) - ranked.index(b)) - 1)

"""Multi-step maths: a bill in two to four steps, with unit prices, discounts, surcharges, shares and change.

Item 0 of seed 0, difficulty 1, split "train":

    Vera buys 10 maps at $15 each. 6 friends share the bill evenly. How many dollars does one of them pay?
    Answer:

Its answer: 25
"""

import random
from collections.abc import Callable
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import NAMES

PAIRS = (("balls", "kites"), ("books", "pens"), ("bowls", "cups"), ("hats", "bags"), ("maps", "tents"))
COUNTS = (2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20)  # so that most totals have a whole percentage
PERCENTS = tuple(  # by the last two digits of a total: those that leave it whole
    tuple(percent for percent in range(5, 80, 5) if rest * percent % 100 == 0) for rest in range(100)
)
Drawn = tuple[tuple[int, ...], int]  # a step's numbers, and the total after it


def buy(rng: random.Random, total: int) -> Drawn:
    """Add a number of goods at a price each."""
    n, price = rng.choice(COUNTS), rng.randint(2, 40)
    return (n, price, n * price), total + n * price


def packs(rng: random.Random, total: int) -> Drawn:
    """Add goods that are priced by the pack."""
    size, price, n = rng.randint(2, 10), rng.randint(2, 15), rng.choice(COUNTS)
    return (n, size, size * price, price, n * price), total + n * price


def discount(rng: random.Random, total: int) -> Drawn | None:
    """Take off a percentage."""
    percents = PERCENTS[total % 100]
    if not percents:
        return None
    percent = rng.choice(percents)
    return (percent,), total * (100 - percent) // 100


def surcharge(rng: random.Random, total: int) -> Drawn | None:
    """Add a percentage."""
    percents = PERCENTS[total % 100]
    if not percents:
        return None
    percent = rng.choice(percents)
    return (percent,), total * (100 + percent) // 100


def sending(rng: random.Random, total: int) -> Drawn:
    """Add a fixed cost."""
    cost = rng.randint(2, 30)
    return (cost,), total + cost


def share(rng: random.Random, total: int) -> Drawn | None:
    """Divide the total by 2 to 9."""
    n = rng.randint(2, 9)
    return ((n,), total // n) if total % n == 0 else None


def change(rng: random.Random, total: int) -> Drawn:
    """Take the total from a larger sum of whole tens."""
    paid = (total // 10 + rng.randint(1, 9)) * 10
    return (paid,), paid - total


def part(rng: random.Random, total: int) -> Drawn | None:
    """Compare the total with a larger sum, of which it is a whole percentage."""
    percent = rng.choice((5, 10, 20, 25, 30, 40, 50, 60, 75, 80))
    return ((total * 100 // percent,), percent) if total * 100 % percent == 0 else None


# How a step is drawn, told (its numbers by position), worked out, and asked about where it is the last one.
Step = tuple[Callable[[random.Random, int], Drawn | None], tuple[str, ...], str, str]
ASKED = "How many dollars is that in all?"
STEPS: dict[str, Step] = {
    "buy": (buy, ("{name} buys {0} {goods} at ${1} each.", "{name} takes {0} {goods}; each costs ${1}."),
            "{0} * {1} = {2}", ASKED),
    "packs": (packs, ("A pack of {1} {goods} costs ${2}. {name} buys {0} {goods} at this rate.",
                      "{name} buys {0} {goods}, of which {1} cost ${2}."),
              "{2} / {1} = {3}; {0} * {3} = {4}", ASKED),
    "more": (buy, ("To that come {0} {others} at ${1} each.", "{name} adds {0} {others}, each for ${1}."),
             "{0} * {1} = {2}; {before} + {2} = {after}", ASKED),
    "discount": (discount, ("There is a discount of {0}%.", "The shop takes off {0}%."),
                 "{before} * (100 - {0}) / 100 = {after}", "How many dollars are left to pay?"),
    "surcharge": (surcharge, ("Then {0}% are added for service.", "All of this becomes {0}% dearer."),
                  "{before} * (100 + {0}) / 100 = {after}", ASKED),
    "sending": (sending, ("Sending costs ${0} more.", "A bag for ${0} is added."), "{before} + {0} = {after}", ASKED),
    "share": (share, ("{0} friends share the bill evenly.", "The bill is split evenly among {0} friends."),
              "{before} / {0} = {after}", "How many dollars does one of them pay?"),
    "change": (change, ("{name} pays with ${0}.", "{name} hands over ${0}."),
               "{0} - {before} = {after}", "How many dollars does {name} get back?"),
    "part": (part, ("{name} came with ${0}.", "In the purse of {name} were ${0}."),
             "{before} * 100 / {0} = {after}", "What percentage of that is spent?"),
}  # fmt: skip
PLANS = {
    1: (("buy", "sending"), ("buy", "more"), ("buy", "change"), ("buy", "share")),
    2: (("buy", "discount"), ("buy", "surcharge"), ("buy", "part"), ("packs", "change")),
    3: (
        *(("buy", "discount", "change"), ("buy", "more", "part"), ("buy", "surcharge", "share")),
        *(("buy", "discount", "sending"), ("buy", "more", "discount")),
    ),
    4: (
        *(("packs", "discount", "change"), ("packs", "more", "discount"), ("packs", "surcharge", "share")),
        *(("packs", "more", "part"), ("packs", "discount", "sending")),
    ),
    5: (
        *(("packs", "more", "discount", "change"), ("packs", "discount", "surcharge", "change")),
        *(("packs", "more", "surcharge", "share"), ("packs", "discount", "sending", "part")),
    ),
}


@register("problem", "multistep")
class Multistep(NamedTuple):
    """The names of the steps, the numbers of each, and the total after each.

    Difficulty: 1 two steps without percentages; 2 two steps, one of them a percentage or a price by the pack; 3 three
    steps with a percentage; 4 the same from a price by the pack; 5 four steps from a price by the pack. All totals are
    whole.

    The same item: the same steps with the same numbers, whatever the names, the goods and the wording.
    """

    difficulty: int
    plan: tuple[str, ...]
    numbers: tuple[tuple[int, ...], ...]
    totals: tuple[int, ...]

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw a plan, and its numbers until all totals are whole."""
        plan = rng.choice(PLANS[difficulty])
        while True:
            numbers, totals, total = [], [], 0
            for name in plan:
                drawn = STEPS[name][0](rng, total)
                if drawn is None:
                    break
                total = drawn[1]
                numbers.append(drawn[0])
                totals.append(total)
            else:
                return cls(difficulty, plan, tuple(numbers), tuple(totals))

    def content(self) -> str:
        """Return the steps with their numbers."""
        return f"{', '.join(self.plan)}: {self.numbers}"

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Tell the steps one after the other, and ask about the last."""
        name, goods, others = rng.choice(NAMES), *rng.choice(PAIRS)
        told, work, before = [], [], 0
        for step, numbers, after in zip(self.plan, self.numbers, self.totals, strict=True):
            _, texts, calculation, asked = STEPS[step]
            told.append(rng.choice(texts).format(*numbers, name=name, goods=goods, others=others))
            work.append(calculation.format(*numbers, before=before, after=after))
            before = after
        answer = f"{before}%" if self.plan[-1] == "part" else str(before)
        return Problem(
            type="multistep",
            difficulty=self.difficulty,
            prompt=f"{' '.join(told)} {asked.format(name=name)}{CUE}",
            answer=answer,
            choices=(),
            explanation="; ".join(work),
            content=content,
        )

"""Word problems: someone has some things, and then one to four things happen to them.

Item 0 of seed 0, difficulty 1, split "train":

    Paul counted 2 marbles at noon. Dora takes away 1. Count the marbles of Paul again.
    Answer:

Its answer: 1
"""

import random
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import NAMES

TEMPLATES = (
    "{name} has {start} {things}. {events} How many {things} does {name} have now?",
    "{name} begins the week with {start} {things}. {events} How many {things} are left at the end?",
    "There are {start} {things} on the table of {name}. {events} How many {things} does {name} end up with?",
    "{name} counted {start} {things} at noon. {events} Count the {things} of {name} again.",
    "At first {name} owned {start} {things}. {events} Give the number of {things} that {name} owns in the end.",
)
EVENTS = {
    "+": ("{name} buys {k} more.", "{friend} brings {k} more.", "Then {name} finds {k} others."),
    "-": ("{name} gives {k} to {friend}.", "Then {name} loses {k}.", "{friend} takes away {k}."),
    "*": ("Soon {name} has {k} times as many.", "The number grows to {k} times what it was."),
    "/": ("{name} keeps one of {k} equal parts.", "They are shared by {k} people, {name} being one of them."),
}
THINGS_COUNTED = ("apples", "beads", "books", "cards", "coins", "marbles", "nuts", "pears", "pins", "shells", "stamps")
STEPS = {1: 1, 2: 2, 3: 3, 4: 3, 5: 4}
LARGEST = {1: 20, 2: 30, 3: 40, 4: 60, 5: 100}  # of the numbers in the text; totals may reach twice as much
FACTORS = (2, 3, 4, 5)


@register("problem", "math")
class MathWord(NamedTuple):
    """A start, what happens to it (an operation and a number each), and the total in the end.

    Difficulty is the number of steps (1 to 4) and the size of the numbers (to 20 at 1, totals to 200 at 5). All totals
    are whole and at least 1.

    The same item: the same start and the same steps, whatever the names, the things and the wording.
    """

    difficulty: int
    start: int
    steps: tuple[tuple[str, int], ...]
    total: int

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the start and the steps."""
        largest = LARGEST[difficulty]
        start = total = rng.randint(2, largest)
        steps = []
        for _ in range(STEPS[difficulty]):
            step = _draw_step(rng, total, largest, may_scale=not steps or steps[-1][0] in "+-")
            total = _apply(total, *step)
            steps.append(step)
        return cls(difficulty, start, tuple(steps), total)

    def content(self) -> str:
        """Return the calculation, read from left to right."""
        return str(self.start) + "".join([f" {operation} {number}" for operation, number in self.steps])

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Tell the steps one after the other."""
        name, friend = rng.sample(NAMES, 2)
        events = [rng.choice(EVENTS[operation]).format(name=name, friend=friend, k=k) for operation, k in self.steps]
        body = rng.choice(TEMPLATES).format(
            name=name, start=self.start, things=rng.choice(THINGS_COUNTED), events=" ".join(events)
        )
        return Problem(
            type="math",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=str(self.total),
            choices=(),
            explanation="; ".join(self._totals()),
            content=content,
        )

    def _totals(self) -> Iterator[str]:
        """Yield each step with the total behind it."""
        total = self.start
        for operation, number in self.steps:
            before, total = total, _apply(total, operation, number)
            yield f"{before} {operation} {number} = {total}"


def _draw_step(rng: random.Random, total: int, largest: int, *, may_scale: bool) -> tuple[str, int]:
    """Draw a step that keeps the total whole, at least 1 and at most twice `largest`.

    Two scaling steps never follow each other, because they would often cancel out.
    """
    if may_scale and rng.random() < 0.5:
        possible = _scalings(total, largest)
        if possible:
            return rng.choice(possible)
    room = min(largest, 2 * largest - total)
    if total > 1 and (room < 1 or rng.random() < 0.5):
        return "-", rng.randint(1, min(largest, total - 1))
    return "+", rng.randint(1, room)


@cache
def _scalings(total: int, largest: int) -> list[tuple[str, int]]:
    possible = [("*", k) for k in FACTORS if total * k <= 2 * largest]
    return possible + [("/", k) for k in FACTORS if total % k == 0 and total > k]


def _apply(total: int, operation: str, number: int) -> int:
    if operation == "+":
        return total + number
    if operation == "-":
        return total - number
    return total * number if operation == "*" else total // number

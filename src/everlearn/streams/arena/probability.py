"""Probability: what is drawn from a bag of balls, as an exact fraction in lowest terms.

Item 0 of seed 0, difficulty 1, split "train":

    There are 10 pink and 13 brown balls in a box. One ball is drawn. What is the probability that it is brown? Give a fraction.
    Answer:

Its answer: 13/23
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import COLOURS, listing

TEMPLATES = (
    "A bag holds {balls} balls. {drawn} How likely is it that {event}? Give a fraction.",
    "There are {balls} balls in a box. {drawn} What is the probability that {event}? Give a fraction.",
    "Someone mixes {balls} balls. {drawn} Find, as a fraction, the probability that {event}.",
)
ONE, BACK, KEPT = (
    "One ball is drawn.",
    "One ball is drawn and put back, then one is drawn again.",
    "Two balls are drawn, one after the other, and kept.",
)
DRAWN = {1: ONE, 2: ONE, 3: BACK, 4: KEPT, 5: KEPT}
N_COLOURS = {1: (2, 3), 2: (3,), 3: (3,), 4: (3,), 5: (3, 4)}
LARGEST = {1: 20, 2: 20, 3: 12, 4: 12, 5: 12}  # balls of one colour; at least 2
MAX_BALLS = 31  # where two are drawn, so that no part of a fraction has more than three digits

# The cases of an event: a product for each way to it. Asked with the numbers of balls, their sum, and 1 if balls are
# kept, so that the second is drawn from one less.
Cases = Callable[[tuple[int, ...], int, int], list[tuple[int, ...]]]
# In words; how many colours play each part in it, the others apart; its cases.
Event = tuple[str, tuple[int, ...], Cases]
PAIR: tuple[Event, ...] = (
    ("both are {a}", (1,), lambda balls, n, kept: [(balls[0], balls[0] - kept)]),
    ("neither is {a}", (1,), lambda balls, n, kept: [(n - balls[0], n - balls[0] - kept)]),
    ("the first is {a} and the second {b}", (1, 1), lambda balls, n, kept: [(balls[0], balls[1])]),
    ("only the first is {a}", (1,), lambda balls, n, kept: [(balls[0], n - balls[0])]),
)
EVENTS: dict[int, tuple[Event, ...]] = {
    1: (("it is {a}", (1,), lambda balls, n, kept: [(balls[0],)]),),
    2: (
        ("it is not {a}", (1,), lambda balls, n, kept: [(n - balls[0],)]),
        ("it is {a} or {b}", (2,), lambda balls, n, kept: [(balls[0],), (balls[1],)]),
    ),
    3: PAIR,
    4: PAIR,
    5: (
        ("exactly one is {a}", (1,), lambda balls, n, kept: [(balls[0], n - balls[0]), (n - balls[0], balls[0])]),
        (
            "at least one is {a}",
            (1,),
            lambda balls, n, kept: [(balls[0], n - kept), (n - balls[0], balls[0])],
        ),
        ("both have the same colour", (), lambda balls, n, kept: [(count, count - kept) for count in balls]),
        ("their colours differ", (), lambda balls, n, kept: [(count, n - count) for count in balls]),
    ),
}


@register("problem", "probability")
@dataclass(frozen=True, slots=True)
class Probability:
    """Which event of `EVENTS` is asked for, and how many balls there are of each colour.

    Difficulty: 1 one ball of a colour; 2 not of a colour, or of either of two; 3 two balls, the first put back; 4 two
    balls, both kept; 5 two balls, both kept, and an event with several cases.

    The same item: the same event with the same numbers of balls, whatever the colours, their order and the wording.
    """

    difficulty: int
    which: int
    counts: tuple[int, ...]

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the event and the balls."""
        which = rng.randrange(len(EVENTS[difficulty]))
        n_colours, largest = rng.choice(N_COLOURS[difficulty]), LARGEST[difficulty]
        while True:
            counts = tuple([rng.randint(2, largest) for _ in range(n_colours)])
            if difficulty < 3 or sum(counts) <= MAX_BALLS:
                return cls(difficulty, which, counts)

    def content(self) -> str:
        """Return the event and the balls; those of colours that play the same part are sorted."""
        words, parts, _ = EVENTS[self.difficulty][self.which]
        rest, groups = self.counts, []
        for n_colours in (*parts, len(rest)):
            groups.append(" ".join(map(str, sorted(rest[:n_colours]))))
            rest = rest[n_colours:]
        return f"{DRAWN[self.difficulty]} {words}: {', '.join(groups)}"

    def problem(self, rng: random.Random) -> Problem:
        """Give the balls their colours, and count the cases."""
        words, _, cases = EVENTS[self.difficulty][self.which]
        colours = rng.sample(COLOURS, len(self.counts))
        balls = [f"{count} {colour}" for count, colour in zip(self.counts, colours, strict=True)]
        rng.shuffle(balls)
        event, drawn = words.format(a=colours[0], b=colours[1]), DRAWN[self.difficulty]
        n_balls, kept = sum(self.counts), int(drawn == KEPT)
        ways = cases(self.counts, n_balls, kept)
        n_ways, n_all = sum(map(prod, ways)), n_balls if drawn == ONE else n_balls * (n_balls - kept)
        answer = str(Fraction(n_ways, n_all))
        steps = [f"{' + '.join(map(str, self.counts))} = {n_balls}"]
        if drawn != ONE:
            steps.append(f"{n_balls} * {n_balls - kept} = {n_all}")
        steps.append(f"{' + '.join(' * '.join(map(str, way)) for way in ways)} = {n_ways}")
        steps.append(f"{n_ways} / {n_all} = {answer}")
        return Problem(
            type="probability",
            difficulty=self.difficulty,
            prompt=rng.choice(TEMPLATES).format(balls=listing(balls), drawn=drawn, event=event) + CUE,
            answer=answer,
            choices=(),
            explanation="; ".join(steps),
            content=self.content(),
        )

"""Probability: what is drawn from a bag of balls, as an exact fraction in lowest terms.

Item 0 of seed 0, difficulty 1, split "train":

    There are 10 pink and 13 brown balls in a box. One ball is drawn. How likely is it, as a fraction, that it is brown?
    Answer:

Its answer: 13/23
"""

import random
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import COLOURS, listing

TEMPLATES = (
    "A bag holds {balls} balls. {drawn} How likely is it that {event}? Give a fraction.",
    "There are {balls} balls in a box. {drawn} How likely is it, as a fraction, that {event}?",
    "Someone mixes {balls} balls. {drawn} Find, as a fraction, the probability that {event}.",
)
ONE, BACK, KEPT = (
    "One ball is drawn.",
    "One ball is drawn and put back, then one is drawn again.",
    "Two balls are drawn, one after the other, and kept.",
)
DRAWN = {1: ONE, 2: ONE, 3: BACK, 4: KEPT, 5: KEPT}
N_COLOURS = {1: (2, 3), 2: (3,), 3: (3,), 4: (3,), 5: (3, 4)}
NUMBERS = {1: range(2, 21), 2: range(2, 21), 3: range(2, 13), 4: range(2, 13), 5: range(2, 13)}  # balls of a colour
MAX_BALLS = 31  # where two are drawn, so that no part of a fraction has more than three digits

# The cases of an event: a product for each way to it. Asked with the balls of each colour, their sum, and 1 if balls
# are kept, so that the second is drawn from one less.
Cases = Callable[[tuple[int, ...], int, int], list[tuple[int, int]]]
# In words; how many of the first colours play a part of their own in it, the others being alike; its cases.
Event = tuple[str, int, Cases]
PAIR: tuple[Event, ...] = (
    ("both are {0}", 1, lambda balls, n, kept: [(balls[0], balls[0] - kept)]),
    ("neither is {0}", 1, lambda balls, n, kept: [(n - balls[0], n - balls[0] - kept)]),
    ("the first is {0} and the second {1}", 2, lambda balls, n, kept: [(balls[0], balls[1])]),
    ("only the first is {0}", 1, lambda balls, n, kept: [(balls[0], n - balls[0])]),
)
EVENTS: dict[int, tuple[Event, ...]] = {
    1: (("it is {0}", 1, lambda balls, n, kept: [(balls[0], 1)]),),
    2: (
        ("it is not {0}", 1, lambda balls, n, kept: [(n - balls[0], 1)]),
        ("it is {1} or {2}", 1, lambda balls, n, kept: [(balls[1], 1), (balls[2], 1)]),
    ),
    3: PAIR,
    4: PAIR,
    5: (
        ("exactly one is {0}", 1, lambda balls, n, kept: [(balls[0], n - balls[0]), (n - balls[0], balls[0])]),
        ("at least one is {0}", 1, lambda balls, n, kept: [(balls[0], n - kept), (n - balls[0], balls[0])]),
        ("both have the same colour", 0, lambda balls, n, kept: [(count, count - kept) for count in balls]),
        ("their colours differ", 0, lambda balls, n, kept: [(count, n - count) for count in balls]),
    ),
}


@register("problem", "probability")
class Probability(NamedTuple):
    """Which event of `EVENTS` is asked for, and how many balls there are of each colour.

    Difficulty: 1 one ball of a colour; 2 not of a colour, or of either of two; 3 two balls, the first put back; 4 two
    balls, both kept; 5 two balls, both kept, and an event with several cases.

    The same item: the same event with the same numbers of balls, whatever the colours, their order and the wording.
    """

    difficulty: int
    which: int
    counts: tuple[int, ...]  # colours that are alike in the event: the smallest number first

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the event and the balls."""
        which = rng.randrange(len(EVENTS[difficulty]))
        own, numbers = EVENTS[difficulty][which][1], NUMBERS[difficulty]
        n_colours = rng.choice(N_COLOURS[difficulty])
        while True:
            counts = [rng.choice(numbers) for _ in range(n_colours)]
            if difficulty < 3 or sum(counts) <= MAX_BALLS:
                return cls(difficulty, which, (*counts[:own], *sorted(counts[own:])))

    def content(self) -> str:
        """Return the event and the balls."""
        return f"{DRAWN[self.difficulty]} {EVENTS[self.difficulty][self.which][0]}: {self.counts}"

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Give the balls their colours, and count the cases."""
        words, _, cases = EVENTS[self.difficulty][self.which]
        drawn, n = DRAWN[self.difficulty], sum(self.counts)
        colours = rng.sample(COLOURS, len(self.counts))
        balls = [f"{count} {colour}" for count, colour in zip(self.counts, colours, strict=True)]
        rng.shuffle(balls)
        body = rng.choice(TEMPLATES).format(balls=listing(balls), drawn=drawn, event=words.format(*colours))
        kept = int(drawn == KEPT)
        ways = cases(self.counts, n, kept)
        second = 1 if drawn == ONE else n - kept
        n_ways = sum([first * then for first, then in ways])
        answer = str(Fraction(n_ways, n * second))
        counted = " + ".join([f"{first} * {then}" for first, then in ways])
        return Problem(
            type="probability",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=answer,
            choices=(),
            explanation=f"{' + '.join(map(str, self.counts))} = {n}; {n} * {second} = {n * second}; "
            f"{counted} = {n_ways}; {n_ways} / {n * second} = {answer}",
            content=content,
        )

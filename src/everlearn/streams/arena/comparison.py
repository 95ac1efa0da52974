"""Transitive reasoning: facts about pairs of people, from which the whole order follows.

Item 0 of seed 0, difficulty 1, split "train":

    Dora outranks Tina. Tina outranks Leo.
    Who is the highest in rank?
    Answer:

Its answer: Dora
"""

import random
from itertools import pairwise
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import NAMES, listing

TEMPLATES = (
    "{facts}\nWho is the {place}?",
    "{facts}\nName the {place} of the {n}.",
    "Facts: {facts}\nQuestion: which of them is the {place}?",
    "We compare {names}. {facts}\nWhich one is the {place}?",
    "From what is said, find the {place}. {facts}",
)
RELATIONS = (  # first over second, second under first, the superlatives of the two ends
    ("{a} outranks {b}.", "{b} ranks below {a}.", "highest in rank", "lowest in rank"),
    ("{a} is older than {b}.", "{b} is younger than {a}.", "oldest", "youngest"),
    ("{a} is taller than {b}.", "{b} is shorter than {a}.", "tallest", "shortest"),
    ("{a} is faster than {b}.", "{b} is slower than {a}.", "fastest", "slowest"),
    ("{a} is stronger than {b}.", "{b} is weaker than {a}.", "strongest", "weakest"),
    ("{a} is richer than {b}.", "{b} is poorer than {a}.", "richest", "poorest"),
)
PEOPLE = {1: 3, 2: 4, 3: 5, 4: 6, 5: 7}
REVERSED_FROM = 3  # from this difficulty on, half of the facts name the lower one first
_ORDINALS = ("", "second ", "third ", "fourth ")
_COUNTS = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}


@register("problem", "comparison")
class Comparison(NamedTuple):
    """People from the most to the least, and the place that is asked for (0 is the most).

    Difficulty is the length of the chain (3 to 7 people), and from 3 on the facts point both ways. Facts come in any
    order. The place is uniform over the chain, so where a name stands in the prompt says nothing about the answer.

    The same item: the same people in the same order, whatever the relation, the place asked for and the order of the
    facts. Other people make another item, since with names aside a chain of three would leave only three items.
    """

    difficulty: int
    chain: tuple[str, ...]
    place: int

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the chain and the place asked for."""
        n_people = PEOPLE[difficulty]
        return cls(difficulty, tuple(rng.sample(NAMES, n_people)), rng.randrange(n_people))

    def content(self) -> str:
        """Return the people from the most to the least."""
        return " > ".join(self.chain)

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Put the chain into words: one fact for each neighbouring pair."""
        over, under, most, least = rng.choice(RELATIONS)
        facts = []
        for above, below in pairwise(self.chain):
            is_reversed = self.difficulty >= REVERSED_FROM and rng.random() < 0.5
            facts.append(((under if is_reversed else over).format(a=above, b=below), f"{above} > {below}"))
        rng.shuffle(facts)
        names = rng.sample(self.chain, len(self.chain))
        from_bottom = len(self.chain) - 1 - self.place
        place = _ORDINALS[self.place] + most if self.place <= from_bottom else _ORDINALS[from_bottom] + least
        where = "the first" if self.place == 0 else "the last" if from_bottom == 0 else f"number {self.place + 1}"
        body = rng.choice(TEMPLATES).format(
            facts=" ".join(told for told, _ in facts), place=place, names=listing(names), n=_COUNTS[len(self.chain)]
        )
        return Problem(
            type="comparison",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=self.chain[self.place],
            choices=tuple(sorted(self.chain)),
            explanation="; ".join([*(pair for _, pair in facts), f"so {content}", f"the {place} is {where}"]),
            content=content,
        )

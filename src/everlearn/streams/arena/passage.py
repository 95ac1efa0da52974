"""Reading: a short passage about visits in a week, and one question that it answers.

Item 0 of seed 0, difficulty 1, split "train":

    On Monday Emma took a hat to the cave. A map came to the harbour on Saturday with Leo. Nobody was in a hurry.
    To which place did the visit by Emma lead?
    Answer:

Its answer: cave
"""

import random
from itertools import combinations
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import NAMES, THINGS, in_any_order

TEMPLATES = (
    "{passage}\n{question}",
    "Read the passage.\n{passage}\n{question}",
    "{question}\n{passage}",
    "Passage: {passage}\nQuestion: {question}",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PLACES = (
    "harbour",
    "museum",
    "theatre",
    "bakery",
    "castle",
    "lake",
    "zoo",
    "mill",
    "island",
    "chapel",
    "stadium",
    "cave",
)
TOLD = (
    "On {day} {name} took a {thing} to the {place}.",
    "{name} reached the {place} on {day}, bringing a {thing}.",
    "A {thing} came to the {place} on {day} with {name}.",
    "{name} was at the {place} on {day} with a {thing}.",
)
REMARKS = (
    "It was a week of little rain.",
    "Every visit was short.",
    "Nobody was in a hurry.",
    "The neighbours liked to hear of it.",
    "It was a week in spring.",
)
QUESTIONS = {
    "day": "On which day was {visit}?",
    "name": "Who made {visit}?",
    "place": "To which place did {visit} lead?",
    "thing": "What was brought on {visit}?",
}
PARTS = tuple(QUESTIONS)
NAMED_BY = {
    "day": "the visit of {known}",
    "name": "the visit by {known}",
    "place": "the visit to the {known}",
    "thing": "the visit with the {known}",
}
ENDS = ("the first visit of the week", "the last visit of the week")
STEPS = {
    0: "{visit}",
    1: "the next visit after {visit}",
    2: "the second visit after {visit}",
    -1: "the last visit before {visit}",
    -2: "the second visit before {visit}",
}
SETS_OF_DAYS = [tuple(combinations(DAYS, n)) for n in range(6)]
N_VISITS = {1: 2, 2: 3, 3: 3, 4: 4, 5: 5}
ENDS_AT = 3  # at this difficulty the question names the visit as the first or last of the week
POSSIBLE = {  # the visit that the question names and the one that it asks about, by their places in the week
    1: ((0, 0), (1, 1)),
    2: ((0, 0), (1, 1), (2, 2)),
    3: ((0, 0), (2, 2)),
    4: tuple((i, j) for i in range(4) for j in range(4) if abs(i - j) == 1),
    5: tuple((i, j) for i in range(5) for j in range(5) if abs(i - j) in (1, 2)),
}

Visit = tuple[str, str, str, str]  # in the order of PARTS


@register("problem", "passage")
class Passage(NamedTuple):
    """Visits of different people to different places in the order of their days, and what is asked of one of them.

    Difficulty: two visits, one of which the question names by what is told of it; three; the first or last of three;
    the one before or after one of four; up to two before or after one of five. They are told in any order.

    The same item: the same visits, whatever is asked, the order and the wording.
    """

    difficulty: int
    visits: tuple[Visit, ...]
    named: int  # the visit that the question names
    target: int  # and the one that it asks about
    asked: str  # one of PARTS

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the visits, and which of them is asked about."""
        n = N_VISITS[difficulty]
        days, names = rng.choice(SETS_OF_DAYS[n]), rng.sample(NAMES, n)
        visits = tuple(zip(days, names, rng.sample(PLACES, n), rng.sample(THINGS, n), strict=True))
        return cls(difficulty, visits, *rng.choice(POSSIBLE[difficulty]), rng.choice(PARTS))

    def content(self) -> str:
        """Return the visits in the order of their days."""
        return "; ".join(" ".join(visit) for visit in self.visits)

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Tell the visits in any order, with a remark before or after them."""
        sentences = [
            rng.choice(TOLD).format(day=day, name=name, place=place, thing=thing)
            for day, name, place, thing in in_any_order(rng, self.visits)
        ]
        sentences.insert(rng.choice((0, len(sentences))), rng.choice(REMARKS))
        named = self._named(rng)
        visit = STEPS[self.target - self.named].format(visit=named)
        body = rng.choice(TEMPLATES).format(
            passage=" ".join(sentences), question=QUESTIONS[self.asked].format(visit=visit)
        )
        part = PARTS.index(self.asked)
        answer = self.visits[self.target][part]
        return Problem(
            type="passage",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=answer,
            choices=tuple(sorted(visit[part] for visit in self.visits)),
            explanation="; ".join((*self._steps(named, visit), f"its {self.asked}: {answer}")),
            content=content,
        )

    def _named(self, rng: random.Random) -> str:
        """Return the words by which the question names a visit, without telling what it asks for."""
        if self.difficulty == ENDS_AT:
            return ENDS[self.named > 0]
        part = rng.choice([part for part in PARTS if part != self.asked or self.target != self.named])
        return NAMED_BY[part].format(known=self.visits[self.named][PARTS.index(part)])

    def _steps(self, named: str, visit: str) -> list[str]:
        steps = ["in the order of days: " + ", ".join(f"{day} {name}" for day, name, *_ in self.visits)]
        steps.append(f"{named}: {', '.join(self.visits[self.named])}")
        return steps if self.target == self.named else [*steps, f"{visit}: {', '.join(self.visits[self.target])}"]

"""Constraint satisfaction: who owns what (and wears which colour), by clues that leave one solution.

Item 0 of seed 0, difficulty 1, split "train":

    One each for Vera, Anna and Leo: a cake, boat and coin. Clues: Leo does not own the cake. Anna owns the coin.
    What does Vera own?
    Answer:

Its answer: cake
"""

import random
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.solver import Clue, ClueKind, enough, settled, true_clues
from everlearn.streams.arena.vocabulary import COLOURS, NAMES, THINGS, listing

TEMPLATES = (
    "{people} own a {things}, one each.{colours} {clues}\n{question}",
    "A {things} belong to {people}, one to each.{colours} {clues}\n{question}",
    "One each for {people}: a {things}.{colours} Clues: {clues}\n{question}",
    "Use the clues. {clues} The owners of a {things} are {people}.{colours}\n{question}",
)
CLUES = {  # (kind, attribute)
    ("is", 0): "{left} owns the {right}.",
    ("not", 0): "{left} does not own the {right}.",
    ("either", 0): "{left} owns the {right} or the {other}.",
    ("is", 1): "{left} wears {right}.",
    ("not", 1): "{left} does not wear {right}.",
    ("either", 1): "{left} wears {right} or {other}.",
    ("link", 1): "The owner of the {left} wears {right}.",
    ("unlink", 1): "The owner of the {left} does not wear {right}.",
}
COLOUR_LIST = " Each wears one colour: {colours}."
QUESTIONS = ("What does {person} own?", "Which colour does {person} wear?")
N_PEOPLE = {1: 3, 2: 3, 3: 4, 4: 4, 5: 4}
N_ATTRIBUTES = {1: 1, 2: 1, 3: 1, 4: 1, 5: 2}
# How many clues of a strong kind come first, and the kinds that then fill up until one solution is left.
FIRST: dict[int, dict[ClueKind, int]] = {1: {"is": 1}, 2: {}, 3: {"is": 1}, 4: {}, 5: {"link": 2}}
THEN: dict[int, tuple[ClueKind, ...]] = {
    1: ("not",),
    2: ("not",),
    3: ("not", "either"),
    4: ("not", "either"),
    5: ("not", "either", "unlink"),
}


@register("problem", "logic")
class LogicGrid(NamedTuple):
    """People, and in the same order what each of them owns, and at difficulty 5 also wears.

    Difficulty: 3 people, one of them given; 3 with exclusions only; 4, one of them given; 4 with none given; 4 with two
    attributes that are linked. The clues are chosen with the solver: they leave one solution, and none can be left out.

    The same item: the same people owning (and wearing) the same, whatever the clues, the question and the wording.
    Other people or things make another item, since with names aside three people would leave only a few items.
    """

    difficulty: int
    people: tuple[str, ...]
    things: tuple[str, ...]
    colours: tuple[str, ...]  # empty below difficulty 5

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the people and the solution."""
        n_people = N_PEOPLE[difficulty]
        colours = rng.sample(COLOURS, n_people) if N_ATTRIBUTES[difficulty] == 2 else []
        people, things = rng.sample(NAMES, n_people), rng.sample(THINGS, n_people)
        return cls(difficulty, tuple(people), tuple(things), tuple(colours))

    def content(self) -> str:
        """Return the solution, people in alphabetical order."""
        columns = (self.people, self.things, self.colours) if self.colours else (self.people, self.things)
        return "; ".join(sorted([": ".join(part) for part in zip(*columns, strict=True)]))

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Choose clues until one solution is left, and ask for something that no clue gives away."""
        clues = self._choose_clues(rng)
        values = (self.things, self.colours)
        attribute = rng.randrange(N_ATTRIBUTES[self.difficulty])
        given = {clue.left for clue in clues if clue.kind == "is" and clue.attribute == attribute}
        person = rng.choice([number for number in range(len(self.people)) if number not in given])
        return Problem(
            type="logic",
            difficulty=self.difficulty,
            prompt=self._body(rng, clues, QUESTIONS[attribute].format(person=self.people[person])) + CUE,
            answer=values[attribute][person],
            choices=tuple(sorted(values[attribute])),
            explanation="; ".join(self._steps(clues, attribute, person)),
            content=content,
        )

    def _choose_clues(self, rng: random.Random) -> list[Clue]:
        shape = N_PEOPLE[self.difficulty], N_ATTRIBUTES[self.difficulty]
        known = true_clues(*shape)
        candidates = [clue for kind, n in FIRST[self.difficulty].items() for clue in rng.sample(known[kind], n)]
        others = list(chain.from_iterable([known[kind] for kind in THEN[self.difficulty]]))
        rng.shuffle(others)
        clues = enough(candidates + others, *shape)
        rng.shuffle(clues)
        return clues

    def _steps(self, clues: list[Clue], attribute: int, person: int) -> Iterator[str]:
        """Yield the clues, that first which settles most, each with what it settles, until the answer is known."""
        shape, asked = (len(self.people), N_ATTRIBUTES[self.difficulty]), (attribute, person)
        waiting, used, known = list(clues), [], set()
        while asked not in known:
            clue = max(waiting, key=lambda one: (one.kind == "is", len(settled([*used, one], *shape))))
            waiting.remove(clue)
            used.append(clue)
            new = sorted(settled(used, *shape) - known, key=lambda one: (one[1] != clue.left, one))
            known |= set(new)
            told = [self._fact(*one) for one in (new[: new.index(asked) + 1] if asked in new else new)]
            text = self._text(clue).removesuffix(".")
            follows = [fact for fact in told if fact != text]
            yield f"{text}, so {follows[0]}" if follows else text
            yield from follows[1:]
            if new and asked not in known:
                values = (self.things, self.colours)[attribute]
                left = [value for who, value in enumerate(values) if (attribute, who) not in known]
                yield f"left: {', '.join(sorted(left))}"

    def _fact(self, attribute: int, person: int) -> str:
        return CLUES["is", attribute].format(
            left=self.people[person], right=(self.things, self.colours)[attribute][person]
        ).removesuffix(".")  # fmt: skip

    def _body(self, rng: random.Random, clues: list[Clue], question: str) -> str:
        shuffled = [rng.sample(words, len(words)) for words in (self.people, self.things, self.colours)]
        colours = COLOUR_LIST.format(colours=listing(shuffled[2])) if self.colours else ""
        return rng.choice(TEMPLATES).format(
            people=listing(shuffled[0]),
            things=listing(shuffled[1]),
            colours=colours,
            clues=" ".join([self._text(clue) for clue in clues]),
            question=question,
        )

    def _text(self, clue: Clue) -> str:
        values = (self.things, self.colours)[clue.attribute]
        subjects = self.things if clue.kind in ("link", "unlink") else self.people
        return CLUES[clue.kind, clue.attribute].format(
            left=subjects[clue.left], right=values[clue.right], other=values[clue.other]
        )

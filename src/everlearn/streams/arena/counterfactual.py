"""Counterfactual reasoning: what is so, one or two things that are imagined otherwise, and where that leads.

Item 0 of seed 0, difficulty 1, split "train":

    Imagine that white trained in the loft, against these facts.
    Will plays for white and Uma for pink. White trains in the stable and pink in the loft.
    Nothing else changes, so where would Will train?
    Answer:

Its answer: loft
"""

import random
from itertools import combinations
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import COLOURS, NAMES, in_any_order, listing

TEMPLATES = (
    "{facts}\nIf instead {change}, {question}?",
    "So it is: {facts}\nSo it might be: {change}. Then {question}?",
    "Imagine that {change}, against these facts.\n{facts}\nNothing else changes, so {question}?",
    "{facts}\nNow imagine that {change} instead. In that world, {question}?",
)
ROOMS = ("attic", "barn", "cellar", "gym", "hall", "hangar", "loft", "park", "stable", "tower")
MEALS = ("beans", "cheese", "noodles", "pancakes", "pasta", "porridge", "rice", "salad", "soup", "toast")
LINKS = (  # what stands before the one and between the two: as told of the first, of the others, and as imagined
    ("", " plays for ", " for ", " played for "),
    ("", " trains in the ", " in the ", " trained in the "),
    ("the ", " serves ", " ", " served "),
)
TOLD, SHORT, IMAGINED = 1, 2, 3  # places in a row of LINKS
QUESTIONS = {2: "where would {name} train", 3: "what would {name} be served"}
N_ROWS = {1: 2, 2: 3, 3: 3, 4: 3, 5: 4}  # people, and of each other kind
N_LINKS = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
N_CHANGES = {1: 1, 2: 1, 3: 1, 4: 2, 5: 2}
CHANGED = {(n, k): tuple(combinations(range(n), k)) for n in (2, 3) for k in (1, 2)}  # the columns of k changes
RELEVANT = 0.75  # the share of changes that are about what the question leads to


@register("problem", "counterfactual")
class Counterfactual(NamedTuple):
    """People, their teams, the teams' rooms and what is served there, in rows; and links that are imagined otherwise.

    As told, row i of each column leads to row i of the next. `changes` says of a column and row which row of the next
    column it leads to instead. So one answer follows, and it may stay as it was.

    Difficulty: two people, teams and rooms with one change; three; three with a meal for each room; two changes there;
    four of each.

    The same item: the same facts, whatever is imagined, whoever is asked for, the order and the wording.
    """

    difficulty: int
    columns: tuple[tuple[str, ...], ...]
    changes: tuple[tuple[int, int, int], ...]
    asked: int

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the facts, and the changes along the way from the one who is asked for."""
        n_rows, n_links = N_ROWS[difficulty], N_LINKS[difficulty]
        pools = (NAMES, COLOURS, ROOMS, MEALS)[: n_links + 1]
        columns = tuple(tuple(rng.sample(pool, n_rows)) for pool in pools)
        asked = row = rng.randrange(n_rows)
        changes = []
        for column in rng.choice(CHANGED[n_links, N_CHANGES[difficulty]]):
            is_relevant = rng.random() < RELEVANT
            changed = row if is_relevant else _other(rng, row, n_rows)
            target = _other(rng, changed, n_rows)
            row = target if is_relevant else row
            changes.append((column, changed, target))
        return cls(difficulty, columns, tuple(changes), asked)

    def content(self) -> str:
        """Return the facts, people in alphabetical order."""
        return "; ".join(sorted(" ".join(row) for row in zip(*self.columns, strict=True)))

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Tell the facts column by column, the rows of each in any order."""
        changes = [self._link(column, *rows, IMAGINED) for column, *rows in self.changes]
        question = QUESTIONS[len(self.columns) - 1].format(name=self.columns[0][self.asked])
        body = rng.choice(TEMPLATES).format(facts=self._facts(rng), change=" and ".join(changes), question=question)
        *steps, answer = self._steps()
        return Problem(
            type="counterfactual",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=answer,
            choices=tuple(sorted(self.columns[-1])),
            explanation="; ".join((*steps, f"so {answer}")),
            content=content,
        )

    def _facts(self, rng: random.Random) -> str:
        sentences, rows = [], range(len(self.columns[0]))
        for column in range(len(self.columns) - 1):
            first, *others = in_any_order(rng, rows)
            links = [self._link(column, first, first), *(self._link(column, row, row, SHORT) for row in others)]
            text = listing(links)
            sentences.append(f"{text[0].upper()}{text[1:]}.")
        return " ".join(sentences)

    def _steps(self) -> list[str]:
        """Return the links from the one who is asked for, each as told or as imagined, and the end of the last."""
        instead = {(column, row): target for column, row, target in self.changes}
        steps, row = [], self.asked
        for column in range(len(self.columns) - 1):
            target = instead.get((column, row))
            follows = row if target is None else target
            steps.append(f"{'as told' if target is None else 'imagined'}: {self._link(column, row, follows)}")
            row = follows
        return [*steps, self.columns[-1][row]]

    def _link(self, column: int, row: int, target: int, form: int = TOLD) -> str:
        words = LINKS[column]
        return f"{words[0]}{self.columns[column][row]}{words[form]}{self.columns[column + 1][target]}"


def _other(rng: random.Random, row: int, n_rows: int) -> int:
    return (row + rng.randrange(1, n_rows)) % n_rows

"""Deduction: who belongs to a group, by rules about all and none of others; and who lies, by what people say.

Item 0 of seed 0, difficulty 1, split "train":

    Reply yes or no. Is Jack one of the climbers?
    Jack is one of the campers.
    The weavers never belong to the climbers. The campers always belong to the climbers.
    Answer:

Its answer: yes
"""

import random
from itertools import pairwise
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.streams.arena.vocabulary import NAMES, in_any_order, listing

TEMPLATES = (
    "{told}. {given}.\n{question} Reply yes or no.",
    "{given}. {told}.\nDecide, yes or no: {question}",
    "What is certain: {told}. {given}.\n{question} Reply yes or no.",
    "Reply yes or no. {question}\n{given}.\n{told}.",
)
RULES = (  # about none of a group, and about all
    ("None of the {a} are {b}", "All {a} are {b}"),
    ("The {a} never belong to the {b}", "The {a} always belong to the {b}"),
    ("You find no {a} among the {b}", "You find all {a} among the {b}"),
)
GROUPS = (
    *("anglers", "archers", "bowlers", "campers", "climbers", "cyclists", "dancers", "divers", "drummers", "fencers"),
    *("gardeners", "hikers", "jugglers", "knitters", "potters", "readers", "riders", "runners", "sailors", "skaters"),
    *("skiers", "surfers", "swimmers", "weavers"),
)
N_CHAIN = {1: 1, 2: 2, 3: 3}  # rules from the group that is given to the one that is asked for
N_BESIDE = {1: 1, 2: 1, 3: 2}
LIARS_FROM = 4
KINDS = "Each of {people} always tells the truth or always lies."
VERBS = ("lies", "tells the truth")
ABOUT_BOTH = (  # what one says of oneself and another; whether then the other tells the truth, and why
    ("{other} and I both lie", True, "no one can say this and be right, so {other} tells the truth"),
    ("at least one of {other} and me lies", False, "a liar would be right to say this, so {other} lies"),
    ("{other} and I are of one kind", True, "truthful or not, {speaker} can say this only if {other} tells the truth"),
    ("{other} and I are of two kinds", False, "truthful or not, {speaker} can say this only if {other} lies"),
)


@register("problem", "deduction")
class Deduction(NamedTuple):
    """Rules about groups (difficulty 1 to 3), or people who always lie or never do (4 and 5).

    Difficulty: one, two and three rules that lead to the group asked for, with one or two beside them; then two
    statements that lead from someone known to someone asked for; then three, the first of them about two people at
    once. Yes and no are equally frequent, and what is told beside the rules has the other sign.

    The same item: the same rules whoever they are applied to, or the same statements of the same people; whatever
    their order and the wording.
    """

    difficulty: int
    case: "Groups | Liars"

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the rules, or the people and what they say."""
        kind = Groups if difficulty < LIARS_FROM else Liars
        return cls(difficulty, kind.draw(rng, difficulty))

    def content(self) -> str:
        """Return the rules or the statements in alphabetical order."""
        return self.case.content()

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Tell the facts in any order, and ask for what follows from all of them."""
        told, given, question, steps = self.case.tell(rng)
        answer = "yes" if self.case.holds else "no"
        body = rng.choice(TEMPLATES).format(told=". ".join(in_any_order(rng, told)), given=given, question=question)
        return Problem(
            type="deduction",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=answer,
            choices=("yes", "no"),
            explanation="; ".join((*steps, f"so {answer}")),
            content=content,
        )


class Groups(NamedTuple):
    """Rules (group, other group, all or none), the first of which lead from group to group."""

    rules: tuple[tuple[str, str, bool], ...]
    n_chain: int
    holds: bool  # whether who is in the first group is in the last

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw a chain of groups, and others: no one is known to be in these, so that they decide nothing."""
        n_chain = N_CHAIN[difficulty]
        groups = rng.sample(GROUPS, n_chain + 1 + N_BESIDE[difficulty])
        chain, beside, holds = groups[: n_chain + 1], groups[n_chain + 1 :], rng.random() < 0.5
        rules = [(group, other, True) for group, other in pairwise(chain[:-1])]
        rules += [(chain[-2], chain[-1], holds), (beside[0], chain[-1], not holds)]
        rules += [(rng.choice(chain), other, rng.random() < 0.5) for other in beside[1:]]
        return cls(tuple(rules), n_chain, holds)

    def content(self) -> str:
        """Return the rules in alphabetical order."""
        return "; ".join(sorted(f"{group} {'in' if every else 'out of'} {other}" for group, other, every in self.rules))

    def tell(self, rng: random.Random) -> tuple[list[str], str, str, list[str]]:
        """Return the rules, who is given to be in the first group, the question and the steps."""
        name, wording = rng.choice(NAMES), rng.choice(RULES)
        told = [wording[every].format(a=group, b=other) for group, other, every in self.rules]
        given = f"{name} is one of the {self.rules[0][0]}"
        follow = told[: self.n_chain]
        return told, given, f"Is {name} one of the {self.rules[self.n_chain - 1][1]}?", [given, *follow]


class Liars(NamedTuple):
    """People in a row: of the first it is known, or follows for the second, who lies; then one links to the next."""

    people: tuple[str, ...]
    truthful: tuple[bool, ...]  # of the first, nothing is asked or known where it speaks about both
    forward: tuple[bool, ...]  # for each link whether the earlier one speaks
    about_both: int | None  # which of ABOUT_BOTH the first one says

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw who lies, and who speaks about whom."""
        is_hard = difficulty > LIARS_FROM
        n_people = 4 if is_hard else 3
        truthful = [rng.random() < 0.5 for _ in range(n_people)]
        about_both = rng.randrange(len(ABOUT_BOTH)) if is_hard else None
        if about_both is not None:
            truthful[1] = ABOUT_BOTH[about_both][1]
        forward = rng.random() < 0.5, rng.random() < 0.5
        return cls(tuple(rng.sample(NAMES, n_people)), tuple(truthful), forward, about_both)

    @property
    def holds(self) -> bool:
        """Whether the last one tells the truth."""
        return self.truthful[-1]

    def content(self) -> str:
        """Return what is known and the statements, in alphabetical order."""
        return "; ".join(sorted([self._start()[0], *(statement for statement, _ in self._links())]))

    def tell(self, rng: random.Random) -> tuple[list[str], str, str, list[str]]:
        """Return the statements, what is given, the question and the steps."""
        given, step = self._start()
        links = self._links()
        kinds = KINDS.format(people=listing(in_any_order(rng, self.people)))
        told = [statement for statement, _ in links]
        return told, f"{kinds} {given}", f"Does {self.people[-1]} tell the truth?", [step, *(why for _, why in links)]

    def _start(self) -> tuple[str, str]:
        """Return what the row starts from, and what follows."""
        first, second = self.people[:2]
        if self.about_both is None:
            known = f"{first} {VERBS[self.truthful[0]]}"
            return f"It is certain that {known}", known
        statement, _, why = ABOUT_BOTH[self.about_both]
        said = f"{first} says: {statement.format(other=second)}"
        return said, f"{said}; {why.format(speaker=first, other=second)}"

    def _links(self) -> list[tuple[str, str]]:
        """Return for each link what is said, and what follows for the later of the two."""
        first = len(self.people) - 1 - len(self.forward)
        links = []
        for place, forward in enumerate(self.forward, start=first):
            speaker, other = (place, place + 1) if forward else (place + 1, place)
            agree = self.truthful[speaker] == self.truthful[other]  # a liar calls a liar truthful
            said = f"{self.people[speaker]} says that {self.people[other]} {VERBS[agree]}"
            known, follows = (f"{self.people[who]} {VERBS[self.truthful[who]]}" for who in (place, place + 1))
            links.append((said, f"{known} and {said}, so {follows}"))
        return links

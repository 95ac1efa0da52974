"""Deductions, decided again by trying every world against what the prompt states."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import product

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.deduction import LIARS_FROM, N_BESIDE, N_CHAIN
from everlearn.streams.arena.vocabulary import NAMES

ALL = re.compile(r"All (\w+) are (\w+)\.|The (\w+) always belong to the (\w+)\.|You find all (\w+) among the (\w+)\.")
NONE = re.compile(
    r"None of the (\w+) are (\w+)\.|The (\w+) never belong to the (\w+)\.|You find no (\w+) among the (\w+)\."
)
GIVEN = re.compile(r"\w+ is one of the (\w+)\.")
ABOUT_ONE = re.compile(r"(\w+) says that (\w+) (lies|tells the truth)\.")
KNOWN = re.compile(r"It is certain that (\w+) (lies|tells the truth)\.")
ABOUT_BOTH = {
    r"(\w+) says: (\w+) and I both lie\.": lambda me, other: not me and not other,
    r"(\w+) says: at least one of (\w+) and me lies\.": lambda me, other: not me or not other,
    r"(\w+) says: (\w+) and I are of one kind\.": lambda me, other: me == other,
    r"(\w+) says: (\w+) and I are of two kinds\.": lambda me, other: me != other,
}

World = dict[str, bool]


def rules_of(prompt: str) -> list[tuple[str, str, bool]]:
    every = [(*filter(None, found), True) for found in ALL.findall(prompt)]
    return every + [(*filter(None, found), False) for found in NONE.findall(prompt)]


def conditions_on_groups(prompt: str) -> tuple[list[str], list[Callable[[World], bool]], str]:
    """Return the groups, what their membership must fulfil, and the group that is asked for."""
    rules = rules_of(prompt)
    conditions = [lambda world, a=a, b=b, every=every: not world[a] or world[b] == every for a, b, every in rules]
    given, asked = GIVEN.search(prompt).group(1), re.search(r"Is \w+ one of the (\w+)\?", prompt).group(1)
    groups = sorted({given, asked, *(group for rule in rules for group in rule[:2])})
    return groups, [*conditions, lambda world: world[given]], asked


def conditions_on_liars(prompt: str) -> tuple[list[str], list[Callable[[World], bool]], str]:
    """Return the people, what their truthfulness must fulfil, and who is asked for."""
    people = sorted({word for word in re.findall(r"\w+", prompt) if word in NAMES})
    conditions: list[Callable[[World], bool]] = []
    for speaker, other, verb in ABOUT_ONE.findall(prompt):
        conditions.append(lambda world, s=speaker, o=other, v=verb: world[s] == (world[o] == (v != "lies")))
    for name, verb in KNOWN.findall(prompt):
        conditions.append(lambda world, n=name, v=verb: world[n] == (v != "lies"))
    for pattern, says in ABOUT_BOTH.items():
        for speaker, other in re.findall(pattern, prompt):
            conditions.append(lambda world, s=speaker, o=other, says=says: world[s] == says(world[s], world[o]))
    return people, conditions, re.search(r"Does (\w+) tell the truth\?", prompt).group(1)


def decide(prompt: str) -> tuple[set[bool], int]:
    """Return what holds of the one asked for in the worlds that are possible, and the number of conditions."""
    read = conditions_on_groups if "one of the" in prompt and "says" not in prompt else conditions_on_liars
    unknowns, conditions, asked = read(prompt)
    worlds = [dict(zip(unknowns, values, strict=True)) for values in product((True, False), repeat=len(unknowns))]
    return {world[asked] for world in worlds if all(holds(world) for holds in conditions)}, len(conditions)


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_all_possible_worlds_give_the_answer(difficulty):
    for index in range(200):
        problem = problem_at("deduction", index, difficulty=difficulty)
        verdicts, n_conditions = decide(problem.prompt)
        assert verdicts == {problem.answer == "yes"}, problem
        assert n_conditions == (3 if difficulty >= LIARS_FROM else N_CHAIN[difficulty] + N_BESIDE[difficulty] + 1)


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_nothing_that_leads_to_the_answer_can_be_left_out(difficulty):
    for index in range(50):
        problem = problem_at("deduction", index, difficulty=difficulty)
        steps = problem.explanation.split("; ")
        sentences = [part for part in re.findall(r"[^.?!\n]+\.", problem.prompt) if "Each of" not in part]
        needed = [sentence for sentence in sentences if any(sentence.strip(" .\n") in step for step in steps)]
        for sentence in needed:
            if not GIVEN.search(sentence):
                assert len(decide(problem.prompt.replace(sentence, ""))[0]) == 2, (sentence, problem)


def test_answers_are_balanced_and_signs_tell_nothing():
    by_sign: dict[int, Counter] = {}
    for index in range(3000):
        problem = problem_at("deduction", index, difficulty=1 + index % 3)
        n_negative = sum(not every for _, _, every in rules_of(problem.prompt))
        by_sign.setdefault(n_negative, Counter())[problem.answer] += 1
    assert all(abs(counts["yes"] / counts.total() - 0.5) < 0.06 for counts in by_sign.values())
    liars = Counter(problem_at("deduction", index, difficulty=4 + index % 2).answer for index in range(3000))
    assert abs(liars["yes"] / 3000 - 0.5) < 0.04


def test_content_is_what_is_stated():
    problem = problem_at("deduction", 0, difficulty=2)
    rules = sorted(f"{a} {'in' if every else 'out of'} {b}" for a, b, every in rules_of(problem.prompt))
    assert problem.content == "; ".join(rules)
    for statement in problem_at("deduction", 0, difficulty=5).content.split("; "):
        assert f"{statement}." in problem_at("deduction", 0, difficulty=5).prompt

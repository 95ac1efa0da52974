"""Sequences, continued again by fitting every family of rules to the terms that the prompt shows."""

import re
from itertools import pairwise

import pytest

from everlearn.streams.arena import problem_at


def differences(terms: list[int]) -> list[int]:
    return [after - before for before, after in pairwise(terms)]


def same(values: list) -> bool:
    return len(set(values)) == 1


def continuations(terms: list[int]) -> set[int]:
    """Return what each family that fits the terms (with a term to spare) says comes next."""
    found, steps = set(), differences(terms)
    if same(steps):
        found.add(terms[-1] + steps[0])
    if same([after / before for before, after in pairwise(terms)]):
        found.add(round(terms[-1] * terms[1] / terms[0]))
    if len(terms) >= 5 and all(c == a + b for a, b, c in zip(terms, terms[1:], terms[2:], strict=False)):
        found.add(terms[-1] + terms[-2])
    if len(terms) >= 5 and same(differences(steps)):
        found.add(terms[-1] + 2 * steps[-1] - steps[-2])
    if len(terms) >= 5 and same(steps[::2]) and same(steps[1::2]):
        found.add(terms[-1] + steps[-2])
    if len(terms) >= 6 and same(differences(terms[::2])) and same(differences(terms[1::2])):
        found.add(2 * terms[-2] - terms[-4])
    for factor in (2, 3):
        if same([after - factor * before for before, after in pairwise(terms)]):
            found.add(factor * terms[-1] + terms[1] - factor * terms[0])
    return found


def shown(prompt: str) -> list[int]:
    return [int(term) for term in re.search(r"\d+(?:, \d+){3,}", prompt).group().split(", ")]


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_every_fitting_rule_gives_the_answer(difficulty):
    for index in range(1500):
        problem = problem_at("sequence", index, difficulty=difficulty)
        assert continuations(shown(problem.prompt)) == {int(problem.answer)}, problem
        assert problem.content == " ".join(map(str, [*shown(problem.prompt), problem.answer]))


def test_sizes_grow_with_difficulty():
    def largest(difficulty: int) -> int:
        return max(int(problem_at("sequence", index, difficulty=difficulty).answer) for index in range(1000))

    assert largest(1) <= 100
    assert largest(2) > 100
    assert largest(5) > largest(3) > 100
    assert largest(5) < 10_000


def test_no_term_is_negative():
    answers = [int(problem_at("sequence", i, difficulty=d).answer) for d in range(1, 6) for i in range(300)]
    assert min(answers) >= 0


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_calculations_of_the_explanation_are_right_and_the_last_gives_the_answer(difficulty):
    for index in range(200):
        problem = problem_at("sequence", index, difficulty=difficulty)
        steps = [step.split(" = ") for step in problem.explanation.split("; ") if " = " in step]
        assert all(eval(calculation) == int(result) for calculation, result in steps), problem
        assert steps[-1][1] == problem.answer == problem.content.split()[-1], problem
        numbers = {int(number) for number in re.findall(r"\d+", problem.prompt)}
        assert numbers & {int(number) for number in re.findall(r"\d+", steps[-1][0])}, problem


def test_every_family_appears():
    rules = " | ".join(problem_at("sequence", i, difficulty=d).explanation for d in range(1, 6) for i in range(100))
    for words in ("more", "less", "times", "divided", "sum of the two", "in turn", "grows", "plus", "two rows"):
        assert words in rules

"""Equations, solved again by trying every whole number, and each step of the solution checked with it."""

import re
from itertools import product

import pytest

from everlearn.streams.arena import problem_at

WORDS = re.compile(r"\s*(?:\b[A-Za-z]{2,}\b|[.?,\n])\s*")


def holds(equation: str, values: dict[str, int]) -> bool:
    left, right = re.sub(r"(\d)([a-z(])", r"\1*\2", equation).split("=")
    return eval(left, {}, values) == eval(right, {}, values)


def stated(prompt: str) -> list[str]:
    return [part for part in WORDS.split(prompt) if "=" in part]


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_one_whole_solution_fits_and_every_step_holds_for_it(difficulty):
    for index in range(50):
        problem = problem_at("algebra", index, difficulty=difficulty)
        equations = stated(problem.prompt)
        letters = sorted(set(re.findall(r"\b\d*([a-z])\b", " ".join(equations))))
        assert (len(equations), len(letters)) == ((2, 2) if difficulty == 5 else (1, 1)), problem
        fitting = [
            values
            for numbers in product(range(-30, 31) if difficulty < 5 else range(-9, 10), repeat=len(letters))
            if all(holds(equation, values := dict(zip(letters, numbers, strict=True))) for equation in equations)
        ]
        asked = re.search(r"(?:What is|find|number is|value of) ([a-z])\b", problem.prompt)[1]
        assert [values[asked] for values in fitting] == [int(problem.answer)], problem
        steps = problem.explanation.split("; ")
        assert all(holds(step, fitting[0]) for step in steps), problem
        assert steps[-1] == f"{asked} = {problem.answer}"


def test_negative_solutions_come_with_difficulty_3():
    def least(difficulty: int) -> int:
        return min(int(problem_at("algebra", index, difficulty=difficulty).answer) for index in range(300))

    assert least(1) > 0
    assert least(2) > 0
    assert all(least(difficulty) < -3 for difficulty in (3, 4, 5))


def test_content_is_the_equations_in_x_and_y():
    problem = problem_at("algebra", 0, difficulty=5)
    assert re.findall(r"\d+", problem.content) == re.findall(r"\d+", problem.prompt)
    assert set(re.findall("[a-z]", problem.content.replace("and", ""))) == {"x", "y"}

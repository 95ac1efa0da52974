"""Figures, measured again from the prompt by other formulas, and each step of the solution worked out."""

import re
from collections import Counter
from math import dist, isqrt

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.geometry import FIGURES


def shoelace(*corners: tuple[float, float]) -> float:
    """Return the area of a polygon."""
    pairs = zip(corners, corners[1:] + corners[:1], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


MEASURES = {  # by the figure's name: the answer from the told numbers
    "area": lambda a, b: shoelace((0, 0), (a, 0), (a, b), (0, b)),
    "perimeter": lambda a, b: a + b + a + b,
    "width": lambda area, a: area / a,
    "angle": lambda a, b: 180 - a - b,
    "triangle": lambda base, height: shoelace((0, 0), (base, 0), (1, height)),
    "volume": lambda a, b, c: sum(a * b for _ in range(c)),
    "hypotenuse": lambda a, b: dist((0, b), (a, 0)),
    "leg": lambda c, a: next(b for b in range(c) if dist((0, b), (a, 0)) == c),
    "trapezoid": lambda height, a, b: shoelace((0, 0), (a, 0), (b, height), (0, height)),
    "corner": lambda a, b, c, d: shoelace((0, 0), (a, 0), (a, b - d), (a - c, b - d), (a - c, b), (0, b)),
    "path": lambda a, b, c: 2 * c * (a + b) + 4 * c * c,
    "surface": lambda a, b, c: 2 * (a * b + b * c + c * a),
    "rhombus": lambda d, e: 4 * dist((0, d / 2), (e / 2, 0)),
    "isosceles": lambda side, base: base / 2 * (side**2 - (base / 2) ** 2) ** 0.5,
    "tank": lambda volume, a, b: sum(2 * side * volume // (a * b) for side in (a, b)),
}


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_measures_of_the_prompt_give_the_answer(difficulty):
    for index in range(200):
        problem = problem_at("geometry", index, difficulty=difficulty)
        told = map(int, re.findall(r"\d+", problem.prompt))
        assert MEASURES[problem.content.split()[0]](*told) == pytest.approx(int(problem.answer)), problem


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_every_step_is_right_and_the_last_holds_the_answer(difficulty):
    for index in range(200):
        problem = problem_at("geometry", index, difficulty=difficulty)
        steps = [step.split(" = ") for step in problem.explanation.split("; ")]
        assert all(eval(calculation) == int(result) for calculation, result in steps), problem
        assert problem.answer in re.findall(r"\d+", problem.explanation.rpartition("; ")[2])
        squares = [int(result) for calculation, result in steps if re.fullmatch(r"(\d+) \* \1", calculation)]
        assert all(isqrt(square) ** 2 == square for square in squares)


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_every_figure_appears(difficulty):
    names = Counter(problem_at("geometry", i, difficulty=difficulty).content.split()[0] for i in range(300))
    assert set(names) == {draw.__name__ for draw, *_ in FIGURES[difficulty]}
    assert min(names.values()) > 60


def test_content_is_the_figure_and_its_told_measures():
    problem = problem_at("geometry", 0, difficulty=4)
    assert sorted(re.findall(r"\d+", problem.content)) == sorted(re.findall(r"\d+", problem.prompt))

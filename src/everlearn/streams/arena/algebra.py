"""Algebra: an equation in one unknown, or two equations in two unknowns, with a whole solution.

Item 0 of seed 0, difficulty 1, split "train":

    Which value of a fits a + 29 = 58?
    Answer:

Its answer: 29
"""

import random
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem

TEMPLATES = (
    "Solve {equations}. What is {unknown}?",
    "Given {equations}, find {unknown}.",
    "{equations}\nWhich number is {unknown}?",
    "Which value of {unknown} fits {equations}?",
)
LETTERS = (("x", "y"), ("a", "b"), ("p", "q"), ("m", "n"))
LARGEST = {1: 30, 2: 20, 3: 12, 4: 9, 5: 7}  # of the solution; from difficulty 3 on it may be negative
FACTORS = range(2, 10)


@register("problem", "algebra")
class Algebra(NamedTuple):
    """The coefficients of an equation of the difficulty's form, and its solution.

    Difficulty is the form: 1 x + b = c; 2 ax + b = c; 3 ax + b = cx + d; 4 a(x + b) = cx + d; 5 two equations
    ax + by = c and dx + ey = f, of which one unknown is asked for. There is one solution, and it is whole; b, d and the
    solution may be negative from 3 on, b from 1 on.

    The same item: the same equations, whatever the letters, the unknown asked for and the wording.
    """

    difficulty: int
    coefficients: tuple[int, ...]
    solution: tuple[int, ...]

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the solution and all coefficients but the last, which follows."""
        largest = LARGEST[difficulty]
        if difficulty == 5:
            return cls(difficulty, *_draw_pair(rng, largest))
        x = rng.randint(1 if difficulty < 3 else -largest, largest)
        a = 1 if difficulty == 1 else rng.choice(FACTORS)
        b = _nonzero(rng, 60 if difficulty == 1 else 20)
        if difficulty < 3:
            return cls(difficulty, (a, b, a * x + b), (x,))
        c = rng.choice(FACTORS)
        if c == a:
            c = 1
        left = a * (x + b) if difficulty == 4 else a * x + b
        return cls(difficulty, (a, b, c, left - c * x), (x,))

    def content(self) -> str:
        """Return the equations with x and y as unknowns."""
        return self._equations("x", "y")

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Choose letters, and the unknown that is asked for."""
        letters = rng.choice(LETTERS)
        which = rng.randrange(len(self.solution))
        steps = self._pair_steps(which, *letters) if self.difficulty == 5 else self._steps(letters[0])
        body = rng.choice(TEMPLATES).format(equations=self._equations(*letters), unknown=letters[which])
        return Problem(
            type="algebra",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=str(self.solution[which]),
            choices=(),
            explanation="; ".join(steps),
            content=content,
        )

    def _equations(self, x: str, y: str) -> str:
        if self.difficulty == 5:
            a, b, c, d, e, f = self.coefficients
            return f"{_sum(a, x, b, y)} = {c} and {_sum(d, x, e, y)} = {f}"
        a, b = self.coefficients[:2]
        left = f"{a}({_sum(1, x, b)})" if self.difficulty == 4 else _sum(a, x, b)
        return f"{left} = {self._right(x)}"

    def _right(self, x: str) -> str:
        return _sum(self.coefficients[2], x, self.coefficients[3]) if self.difficulty > 2 else str(self.coefficients[2])

    def _steps(self, x: str) -> list[str]:
        """Return equations, each following from the one before; the last one is the solution."""
        a, b, *right = self.coefficients
        c, d = (0, *right) if len(right) == 1 else right
        steps = []
        if self.difficulty == 4:
            b *= a
            steps.append(f"{_sum(a, x, b)} = {self._right(x)}")
        if c:
            a -= c
            steps.append(f"{_sum(a, x, b)} = {d}")
        steps.append(f"{_term(a, x)} = {d} {'-' if b > 0 else '+'} {abs(b)}")
        if a != 1:
            steps += [f"{_term(a, x)} = {d - b}", f"{x} = {d - b} / {a}"]
        return [*steps, f"{x} = {self.solution[0]}"]

    def _pair_steps(self, which: int, x: str, y: str) -> list[str]:
        """Return how one unknown is found: both equations made alike in the other one, then subtracted."""
        a, b, c, d, e, f = self.coefficients
        up, down = (e, b) if which == 0 else (d, a)  # the first equation times `up` less the second times `down`
        rest, unknown = (a * e - b * d, x) if which == 0 else (b * d - a * e, y)
        return [
            f"{_sum(a * up, x, b * up, y)} = {c * up}",
            f"{_sum(d * down, x, e * down, y)} = {f * down}",
            f"{_term(rest, unknown)} = {c * up - f * down}",
            f"{unknown} = {c * up - f * down} / {rest}",
            f"{unknown} = {self.solution[which]}",
        ]


def _draw_pair(rng: random.Random, largest: int) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Return the coefficients of two equations that aren't multiples of each other, and their solution."""
    x, y = rng.randint(-largest, largest), rng.randint(-largest, largest)
    a, d = rng.randint(1, 6), rng.randint(1, 6)
    b, e = _nonzero(rng, 6), _nonzero(rng, 6)
    if a * e == b * d:
        e = -e
    return (a, b, a * x + b * y, d, e, d * x + e * y), (x, y)


def _nonzero(rng: random.Random, largest: int) -> int:
    number = rng.randint(1, largest)
    return number if rng.random() < 0.5 else -number


def _term(factor: int, letter: str) -> str:
    return letter if factor == 1 else f"-{letter}" if factor == -1 else f"{factor}{letter}"


def _sum(factor: int, letter: str, number: int, other: str = "") -> str:
    """Return `factor letter + number other`, as it is written by hand: `3x - y`, `-x + 4`, `2x`."""
    if number == 0:
        return _term(factor, letter)
    second = _term(abs(number), other) if other else str(abs(number))
    return f"{_term(factor, letter)} {'+' if number > 0 else '-'} {second}"

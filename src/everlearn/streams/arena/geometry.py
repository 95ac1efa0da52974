"""Geometry: one measure of a figure from others, all of them whole.

Item 0 of seed 0, difficulty 1, split "train":

    Question: A rectangle is 34 cm long and 30 cm wide. What is its area in square cm?
    Answer:

Its answer: 1020
"""

import random
from collections.abc import Callable
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem

TEMPLATES = ("{question}", "{question} Give the number.", "Question: {question}", "Work it out. {question}")
TRIPLES = ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29), (9, 40, 41), (12, 35, 37), (11, 60, 61))
Numbers = tuple[int, ...]  # the told ones, those on the way, and last the answer


def area(rng: random.Random) -> Numbers:
    """Length, width; area of a rectangle."""
    a, b = rng.randint(2, 60), rng.randint(2, 60)
    return a, b, a * b


def perimeter(rng: random.Random) -> Numbers:
    """Length, width; perimeter of a rectangle."""
    a, b = rng.randint(2, 60), rng.randint(2, 60)
    return a, b, 2 * (a + b)


def width(rng: random.Random) -> Numbers:
    """Area, length; width of a rectangle."""
    a, b = rng.randint(2, 60), rng.randint(2, 60)
    return a * b, a, b


def angle(rng: random.Random) -> Numbers:
    """Two angles of a triangle; their sum, the third."""
    a, b = rng.randint(20, 89), rng.randint(20, 89)
    return a, b, a + b, 180 - a - b


def triangle(rng: random.Random) -> Numbers:
    """Base, height; their product, the area."""
    a, b = rng.randint(3, 40), 2 * rng.randint(2, 20)
    return a, b, a * b, a * b // 2


def volume(rng: random.Random) -> Numbers:
    """Edges of a box; its base, its volume."""
    a, b, c = _edges(rng)
    return a, b, c, a * b, a * b * c


def hypotenuse(rng: random.Random) -> Numbers:
    """Legs of a right triangle; the square of the hypotenuse, the hypotenuse."""
    a, b, c = _right_triangle(rng)
    return a, b, c * c, c


def leg(rng: random.Random) -> Numbers:
    """Hypotenuse and a leg of a right triangle; the square of the other leg, that leg."""
    a, b, c = _right_triangle(rng)
    return c, a, b * b, b


def trapezoid(rng: random.Random) -> Numbers:
    """Parallel sides, height; the sum of the sides, the area."""
    a, c = rng.randint(2, 30), 2 * rng.randint(1, 15)
    b = a + rng.randint(1, 20)
    return a, b, c, a + b, (a + b) * c // 2


def corner(rng: random.Random) -> Numbers:
    """Sides of a rectangle and of the smaller one cut off; both areas, what is left."""
    a, b = rng.randint(5, 30), rng.randint(5, 30)
    c, d = rng.randint(2, a - 2), rng.randint(2, b - 2)
    return a, b, c, d, a * b, c * d, a * b - c * d


def path(rng: random.Random) -> Numbers:
    """Sides of a garden, width of the path around it; outer sides, both areas, the path's area."""
    a, b, c = rng.randint(4, 30), rng.randint(4, 30), rng.randint(1, 6)
    d, e = a + 2 * c, b + 2 * c
    return a, b, c, d, e, d * e, a * b, d * e - a * b


def surface(rng: random.Random) -> Numbers:
    """Edges of a box; its three kinds of face, their sum, the surface."""
    a, b, c = _edges(rng)
    half = a * b + a * c + b * c
    return a, b, c, a * b, a * c, b * c, half, 2 * half


def rhombus(rng: random.Random) -> Numbers:
    """Diagonals of a rhombus; their halves, the square of its side, its side, its perimeter."""
    a, b, c = _right_triangle(rng)
    return 2 * a, 2 * b, a, b, c * c, c, 4 * c


def isosceles(rng: random.Random) -> Numbers:
    """One of the equal sides, the base; half the base, the square of the height, the height, the area."""
    a, b, c = _right_triangle(rng)
    return c, 2 * a, a, b * b, b, a * b


def tank(rng: random.Random) -> Numbers:
    """Volume, length, width; the base, the height, half the way around, the area of the walls."""
    a, b, c = _edges(rng)
    return a * b * c, a, b, a * b, c, a + b, 2 * (a + b) * c


def _edges(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(2, 20), rng.randint(2, 20), rng.randint(2, 20)


def _right_triangle(rng: random.Random) -> tuple[int, int, int]:
    """Return both legs, in any order, and the hypotenuse."""
    a, b, c = rng.choice(TRIPLES)
    scale = rng.randint(1, 12)
    return (a * scale, b * scale, c * scale) if rng.random() < 0.5 else (b * scale, a * scale, c * scale)


# How the numbers are drawn, how many of them are told, the question, and the steps from the told ones to the answer.
Figure = tuple[Callable[[random.Random], Numbers], int, str, str]
FIGURES: dict[int, tuple[Figure, ...]] = {
    1: (
        (area, 2, "A rectangle is {0} cm long and {1} cm wide. What is its area in square cm?", "{0} * {1} = {2}"),
        (perimeter, 2, "How many cm is it once around a card of {0} cm by {1} cm?", "2 * ({0} + {1}) = {2}"),
        (width, 2, "A floor of {0} square m is {1} m long. How many m is it wide?", "{0} / {1} = {2}"),
    ),
    2: (
        (angle, 2, "Two angles of a triangle measure {0} and {1} degrees. How many degrees has the third?",
         "{0} + {1} = {2}; 180 - {2} = {3}"),
        (triangle, 2, "A triangle has a base of {0} cm and a height of {1} cm. What is its area in square cm?",
         "{0} * {1} = {2}; {2} / 2 = {3}"),
        (volume, 3, "A box is {0} cm long, {1} cm wide and {2} cm high. What is its volume in cubic cm?",
         "{0} * {1} = {3}; {3} * {2} = {4}"),
    ),
    3: (
        (hypotenuse, 2, "The legs of a right triangle measure {0} cm and {1} cm. How long is its hypotenuse in cm?",
         "{0} * {0} + {1} * {1} = {2}; {3} * {3} = {2}"),
        (leg, 2, "A rope of {0} m from the top of a pole ends {1} m from its foot. How many m high is the pole?",
         "{0} * {0} - {1} * {1} = {2}; {3} * {3} = {2}"),
        (trapezoid, 3, "A trapezoid, {2} cm high, has parallel sides of {0} and {1} cm. What is its area in square cm?",
         "{0} + {1} = {3}; {3} * {2} / 2 = {4}"),
    ),
    4: (
        (corner, 4, "A corner of {2} cm by {3} cm is cut off a sheet of {0} cm by {1} cm. How many square cm stay?",
         "{0} * {1} = {4}; {2} * {3} = {5}; {4} - {5} = {6}"),
        (path, 3, "Around a garden of {0} m by {1} m runs a path {2} m wide. How many square m does the path cover?",
         "{0} + 2 * {2} = {3}; {1} + 2 * {2} = {4}; {3} * {4} = {5}; {0} * {1} = {6}; {5} - {6} = {7}"),
        (surface, 3, "The edges of a box measure {0} cm, {1} cm and {2} cm. What is its whole surface in square cm?",
         "{0} * {1} = {3}; {0} * {2} = {4}; {1} * {2} = {5}; {3} + {4} + {5} = {6}; 2 * {6} = {7}"),
    ),
    5: (
        (rhombus, 2, "The diagonals of a rhombus measure {0} cm and {1} cm. How many cm is its perimeter?",
         "{0} / 2 = {2}; {1} / 2 = {3}; {2} * {2} + {3} * {3} = {4}; {5} * {5} = {4}; 4 * {5} = {6}"),
        (isosceles, 2, "A triangle has two sides of {0} cm and a third of {1} cm. What is its area in square cm?",
         "{1} / 2 = {2}; {0} * {0} - {2} * {2} = {3}; {4} * {4} = {3}; {2} * {4} = {5}"),
        (tank, 3, "A tank for {0} cubic m is {1} m long and {2} m wide. How many square m do its four walls have?",
         "{1} * {2} = {3}; {0} / {3} = {4}; {1} + {2} = {5}; 2 * {5} * {4} = {6}"),
    ),
}  # fmt: skip


@register("problem", "geometry")
class Geometry(NamedTuple):
    """A figure of `FIGURES`, by difficulty and number, and its measures.

    Difficulty is the number of steps and what they need: 1 rectangles; 2 triangles and boxes; 3 right triangles by
    Pythagorean triples, and trapezoids; 4 figures made of several; 5 a length that isn't told must be found first.

    The same item: the same figure with the same told measures, whatever the wording.
    """

    difficulty: int
    which: int
    numbers: Numbers

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw a figure and its measures."""
        figures = FIGURES[difficulty]
        which = rng.randrange(len(figures))
        return cls(difficulty, which, figures[which][0](rng))

    def content(self) -> str:
        """Return the figure's name and the told measures."""
        draw, n_told, _, _ = FIGURES[self.difficulty][self.which]
        return f"{draw.__name__} {self.numbers[:n_told]}"

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Ask for the last measure."""
        _, _, question, steps = FIGURES[self.difficulty][self.which]
        return Problem(
            type="geometry",
            difficulty=self.difficulty,
            prompt=rng.choice(TEMPLATES).format(question=question.format(*self.numbers)) + CUE,
            answer=str(self.numbers[-1]),
            choices=(),
            explanation=steps.format(*self.numbers),
            content=content,
        )

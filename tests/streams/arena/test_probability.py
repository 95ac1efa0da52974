"""Probabilities, found again by listing every way to draw from the bag that the prompt describes."""

import re
from fractions import Fraction
from itertools import permutations, product

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.problem import verify
from everlearn.streams.arena.vocabulary import COLOURS

COLOUR = rf"({'|'.join(COLOURS)})"
EVENTS = {  # the words of an event, and whether a draw (a colour, or two) belongs to it
    rf"it is {COLOUR}": lambda draw, a: draw == (a,),
    rf"it is not {COLOUR}": lambda draw, a: draw != (a,),
    rf"it is {COLOUR} or {COLOUR}": lambda draw, a, b: draw in ((a,), (b,)),
    rf"both are {COLOUR}": lambda draw, a: draw == (a, a),
    rf"neither is {COLOUR}": lambda draw, a: a not in draw,
    rf"the first is {COLOUR} and the second {COLOUR}": lambda draw, a, b: draw == (a, b),
    rf"only the first is {COLOUR}": lambda draw, a: draw[0] == a != draw[1],
    rf"exactly one is {COLOUR}": lambda draw, a: draw.count(a) == 1,
    rf"at least one is {COLOUR}": lambda draw, a: a in draw,
    "both have the same colour": lambda draw: draw[0] == draw[1],
    "their colours differ": lambda draw: draw[0] != draw[1],
}


def solve(prompt: str) -> Fraction:
    bag = [colour for count, colour in re.findall(rf"(\d+) {COLOUR}", prompt) for _ in range(int(count))]
    event = re.search(r"that (.*?)[?.]", prompt)[1]
    ((belongs, colours),) = [(test, m.groups()) for words, test in EVENTS.items() if (m := re.fullmatch(words, event))]
    if "One ball is drawn." in prompt:
        draws = [(ball,) for ball in bag]
    else:
        draws = list(product(bag, repeat=2) if "put back" in prompt else permutations(bag, 2))
    return Fraction(sum(belongs(draw, *colours) for draw in draws), len(draws))


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_listing_all_draws_gives_the_answer(difficulty):
    for index in range(150):
        problem = problem_at("probability", index, difficulty=difficulty)
        probability = solve(problem.prompt)
        assert problem.answer == f"{probability.numerator}/{probability.denominator}", problem
        assert 0 < probability < 1
        assert len(problem.answer) <= 7


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_every_step_is_right(difficulty):
    for index in range(150):
        problem = problem_at("probability", index, difficulty=difficulty)
        *steps, last = problem.explanation.split("; ")
        assert all(eval(calculation) == int(result) for calculation, result in (step.split(" = ") for step in steps))
        unreduced, answer = last.split(" = ")
        assert Fraction(unreduced.replace(" ", "")) == Fraction(answer)
        assert answer == problem.answer


def test_a_fraction_that_is_not_reduced_is_right_too():
    problem = problem_at("probability", 0, difficulty=4)
    above, below = map(int, problem.answer.split("/"))
    assert verify(f"{3 * above}/{3 * below}", problem.row())
    assert not verify(f"{above + 1}/{below}", problem.row())


def test_content_is_the_event_and_the_numbers():
    problem = problem_at("probability", 0, difficulty=5)
    assert sorted(re.findall(r"\d+", problem.content.rpartition(":")[2])) == sorted(re.findall(r"\d+", problem.prompt))
    assert not any(colour in problem.content.split() for colour in COLOURS)

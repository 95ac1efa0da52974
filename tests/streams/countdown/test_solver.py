"""All solutions of a problem."""

import doctest

import pytest

from everlearn.errors import ConfigError
from everlearn.streams.countdown import solver
from everlearn.streams.countdown.solver import solve
from everlearn.streams.countdown.verify import Verdict, judge
from reference.countdown import n_solutions


def test_the_examples():
    assert doctest.testmod(solver).failed == 0


@pytest.mark.parametrize(
    ("numbers", "target", "operators"),
    [
        ([3, 3, 8, 8], 24, "+-*/"),
        ([1, 5, 5, 5], 24, "+-*/"),
        ([0, 3, 30], 90, "+-*/"),
        ([1, 1, 1], 1, "+-*/"),
        ([7, 7], 0, "-"),
        ([2, 4, 6], -4, "+-"),
        ([0, 3, 4, 5], 0, "-/"),
        ([0, 2, 6, 3], 5, "+-/"),
        ([9, 4, 4, 2], 7, "-"),
        ([9, 4, 2], 7, "+-*"),
    ],
)
def test_solutions_are_right_and_all_there(numbers, target, operators):
    found = solve(numbers, target, operators)
    assert len(set(found)) == len(found) == n_solutions(numbers, target, operators)
    for solution in found:
        assert judge(f"<answer>{solution}</answer>", numbers, target, operators) is Verdict.RIGHT


def test_five_numbers():
    found = solve([2, 3, 7, 10, 25], 99, "+-*/")
    assert found
    assert all(judge(f"<answer>{one}</answer>", [2, 3, 7, 10, 25], 99) is Verdict.RIGHT for one in found)


@pytest.mark.slow
def test_six_numbers():
    found = solve([25, 50, 75, 100, 3, 6], 952)
    assert "(3 * (6 + 100) * 75 - 50) / 25" in found
    assert all(judge(f"<answer>{one}</answer>", [25, 50, 75, 100, 3, 6], 952) is Verdict.RIGHT for one in found)


def test_none():
    assert solve([1, 1, 1], 50) == []


@pytest.mark.parametrize(
    ("numbers", "target", "operators", "message"),
    [
        ([1], 1, "+", "has a wrong length"),
        ([1] * 7, 7, "+", "has a wrong length"),
        ([1, -2], 1, "+", "wants whole numbers"),
        ([1, 2.0], 1, "+", "wants whole numbers"),
        ([1, 2], 3, "+^", "solve.operators: is no group"),
    ],
)
def test_what_it_refuses(numbers, target, operators, message):
    with pytest.raises(ConfigError, match=message):
        solve(numbers, target, operators)

"""The forms of expressions, and solutions counted by them."""

import doctest

import numpy as np
import pytest

from everlearn.streams.countdown import forms
from everlearn.streams.countdown.forms import count_solutions, exact_dtype, forms_of
from reference.countdown import n_solutions


def test_the_examples():
    assert doctest.testmod(forms).failed == 0


def test_there_are_as_many_as_is_known():
    assert [len(forms_of(n, "+-*/").whole) for n in (2, 3, 4, 5)] == [6, 68, 1170, 27142]  # OEIS A140606
    assert [len(forms_of(n, "+-").whole) for n in (2, 3, 4, 5, 6)] == [3, 7, 15, 31, 63]  # 2^n - 1 choices of signs
    assert [len(forms_of(n, "*").whole) for n in (2, 6)] == [1, 1]


@pytest.mark.slow
def test_there_are_as_many_of_six_numbers_as_is_known():
    assert len(forms_of(6, "+-*/").whole) == 793_002


def test_those_without_the_newest_operator_are_those_of_the_others():
    for n in (2, 3, 4):
        for operators in ("+-*/", "+-*", "-*/", "+"):
            older = len(forms_of(n, operators[:-1]).whole) if operators[:-1] else 0
            assert forms_of(n, operators).without_newest.sum() == older


@pytest.mark.parametrize("operators", ["+", "+-", "+-*", "+-*/", "-*/", "+*", "+-/", "-/", "/"])
def test_counts_are_those_of_brute_force(operators):
    rng = np.random.default_rng(3)
    numbers = np.concatenate([rng.integers(0, 7, (40, 3)), [[2, 2, 2], [0, 0, 5], [1, 1, 4], [0, 3, 3]]])
    targets = rng.integers(0, 13, len(numbers))
    counts, without = count_solutions(numbers, targets, operators)
    for row, target, count, older in zip(numbers.tolist(), targets.tolist(), counts, without, strict=True):
        assert count == n_solutions(row, target, operators), (row, target)
        assert older == (n_solutions(row, target, operators[:-1]) if operators[:-1] else 0)
    assert counts.max() >= 1


@pytest.mark.parametrize("operators", ["+-*/", "-/"])
def test_counts_of_four_numbers_are_those_of_brute_force(operators):
    numbers = np.array([[0, 3, 4, 30], [1, 1, 2, 2], [0, 0, 2, 5], [0, 4, 4, 5]])
    targets = np.array([90, 4, 0, 0])
    counts, _ = count_solutions(numbers, targets, operators)
    expected = [
        n_solutions(row, target, operators) for row, target in zip(numbers.tolist(), targets.tolist(), strict=True)
    ]
    assert counts.tolist() == expected


def test_the_order_of_numbers_makes_no_difference():
    one = count_solutions(np.array([[8, 3, 8, 3]]), np.array([24]), "+-*/")
    other = count_solutions(np.array([[3, 3, 8, 8]]), np.array([24]), "+-*/")
    assert [found.tolist() for found in one] == [found.tolist() for found in other] == [[1], [0]]


def test_large_numbers_are_exact_too():
    assert exact_dtype(6, 97, 100) is np.int64
    assert exact_dtype(6, 10_000, 100) is object
    numbers = np.array([[9_999, 10_000, 9_998]], dtype=object)
    counts, _ = count_solutions(numbers, np.array([9_999 * 10_000 + 9_998], dtype=object), "+-*/")
    assert counts.tolist() == [1]

"""Expressions: what is read, what isn't, and the one way in which solutions are written."""

import doctest
from fractions import Fraction

import pytest

from everlearn.streams.countdown import expression
from everlearn.streams.countdown.expression import MAX_CHARACTERS, MAX_DEPTH, parse, write


def test_the_examples():
    assert doctest.testmod(expression).failed == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        (" 1 + 2*3\n", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("10 - (4 - 3)", 9),
        ("24 / 4 / 3", 2),
        ("24 / (4 / 3)", 18),
        ("1 / 3 * 3", 1),
        ("2 * (3 - 5)", -4),
        ("1 / 3", Fraction(1, 3)),
        ("((((5))))", 5),
        ("0 * 7", 0),
        ("1/(2-2)", None),
        ("5 + 1/(2-2)", None),
    ],
)
def test_values_are_exact(text, value):
    assert parse(text).value == value


def test_the_tree_and_what_is_in_it():
    read = parse("(8 - 2) / 8")
    assert read.numbers == (8, 2, 8)
    assert read.operators == {"-", "/"}
    assert (read.tree.operator, read.tree.left.operator, read.tree.right.value) == ("/", "-", 8)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "()", "(", ")", "1 +", "+ 1", "-3 + 5", "1 2", "(1)(2)", "2(3)", "1 + (2", "1 + 2)", ")1(",
        "2 ** 3", "7 // 2", "7 % 2", "1.5 + 2", "1e3", "07 + 1", "0x10", "1_000", "3 = 3", "x + 1", "__import__('os')",
        "٣ + ٤", "²", "１＋２", "3 × 4", "3 − 4", "1\u00a0+ 2", "1;2", "1,2", "1 + \x00 2",
    ],
)  # fmt: skip
def test_what_is_no_expression(text):
    assert parse(text) is None


def test_limits():
    assert parse("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH).value == 1
    assert parse("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1)) is None
    assert parse("1+" * (MAX_CHARACTERS // 2 - 1) + "1").value == MAX_CHARACTERS // 2
    assert parse("1+" * (MAX_CHARACTERS // 2) + "1") is None
    assert parse("9" * 12).value == 999_999_999_999
    assert parse("9" * 13) is None


def test_all_spellings_of_a_solution_are_written_alike():
    numbers = [9, 4, 2]
    assert write([("-", 1, 2), ("-", 0, 3)], numbers) == "9 + 2 - 4"
    assert write([("+", 2, 0), ("-", 3, 1)], numbers) == "9 + 2 - 4"
    assert write([("/", 1, 2), ("*", 3, 0)], numbers) == "9 * 4 / 2"
    assert write([("/", 2, 1), ("/", 0, 3)], numbers) == "9 * 4 / 2"
    assert write([("+", 0, 1), ("/", 3, 2)], numbers) == "(9 + 4) / 2"
    assert write([("*", 1, 2), ("-", 3, 0)], numbers) == "4 * 2 - 9"


def test_operators_that_are_not_allowed_are_not_written():
    assert write([("-", 1, 2), ("-", 0, 4), ("-", 5, 3)], [9, 4, 2, 1], "-") == "9 - 4 - (1 - 2)"
    assert write([("/", 1, 2), ("/", 0, 3)], [9, 4, 2], "/") == "9 / (4 / 2)"
    assert write([("/", 1, 2), ("/", 0, 3)], [9, 4, 0], "/") == "0 / (4 / 9)"  # 9 / (4 / 0) is nothing

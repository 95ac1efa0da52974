"""Whatever the response, there is a verdict, and it is the one that Python's own arithmetic gives."""

from fractions import Fraction

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.streams.countdown.expression import parse
from everlearn.streams.countdown.verify import Verdict, judge, reward, reward_with_attempts

PIECES = ["<answer>", "</answer>", "<think>", "</think>", *"0123456789+-*/() .=", "**", "//", "٣", "\x00", "\n"]
RESPONSES = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
NUMBERS = st.integers(0, 99)
TREES = st.recursive(NUMBERS, lambda side: st.tuples(st.sampled_from("+-*/"), side, side), max_leaves=6)


def spelled(tree) -> str:
    return str(tree) if isinstance(tree, int) else f"({spelled(tree[1])} {tree[0]} {spelled(tree[2])})"


def value(tree) -> Fraction | None:
    if isinstance(tree, int):
        return Fraction(tree)
    left, right = value(tree[1]), value(tree[2])
    if left is None or right is None or (tree[0] == "/" and right == 0):
        return None
    return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[tree[0]](right)


@given(RESPONSES, st.lists(NUMBERS, min_size=1, max_size=6), NUMBERS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_response_gets_a_verdict(text, numbers, target):
    assert judge(text, numbers, target) in Verdict
    assert reward(text, numbers, target) in (0.0, 0.1, 1.0)
    assert 0 <= reward_with_attempts(text, numbers, target) <= 1


@given(st.text(alphabet="0123456789+-*/() ", max_size=20))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_is_read_is_what_python_reads(text):
    read = parse(text)
    if read is not None:
        try:
            expected = eval(text)  # only digits, operators and parentheses
        except ZeroDivisionError:
            assert read.value is None
        else:
            assert float(read.value) == pytest.approx(expected)


@given(TREES)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_tree_is_read_back(tree):
    assert parse(spelled(tree)).value == value(tree)

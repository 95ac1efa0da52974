"""The verifier's source in one file: it needs nothing of ours, and judges alike."""

import ast
import doctest

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.streams.countdown import standalone as module
from everlearn.streams.countdown.standalone import source_of
from everlearn.streams.countdown.verify import judge, reward, reward_with_attempts

PIECES = ["<answer>", "</answer>", "<think>", "</think>", *"3579+-*/() ", "3 + 5 + 7", "7 * 5 - 3", "**", "٣", "/ 0"]
RESPONSES = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
    st.lists(st.sampled_from(PIECES[4:]), max_size=8).map(lambda parts: f"<answer>{' '.join(parts)}</answer>"),
)


@pytest.fixture(scope="module")
def alone():
    """What the file defines, run where nothing of ours can be imported."""

    def imports(name, *rest):
        assert not name.startswith("everlearn")
        return __import__(name, *rest)

    defined = {"__name__": "alone", "__builtins__": {**vars(__import__("builtins")), "__import__": imports}}
    exec(compile(source_of("judge", "reward", "reward_with_attempts"), "alone.py", "exec"), defined)
    return defined


def test_the_example():
    assert doctest.testmod(module).failed == 0


@given(
    RESPONSES,
    st.sampled_from([[3, 5, 7], [3, 5, 7, 9], [5, 5, 3]]),
    st.integers(0, 20),
    st.sampled_from(["+", "+-", "+-*/"]),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_it_judges_as_ours_does(alone, text, numbers, target, operators):
    problem = numbers, target, operators
    assert alone["judge"](text, *problem).value == judge(text, *problem).value
    assert alone["reward"](text, *problem) == reward(text, *problem)
    assert alone["reward_with_attempts"](text, *problem) == reward_with_attempts(text, *problem)


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("<answer>3 + 5 + 7</answer>", (1.0, 1.0)),
        ("<answer>7 * 5 - 3</answer>", (0.1, 0.0)),
        ("<think>7 * 5 - 3</think><answer>1</answer>", (0.1, 0.01)),
        ("3 + 5 + 7", (0.0, 0.0)),
    ],
)
def test_values(alone, text, worth):
    assert (alone["reward"](text, [3, 5, 7], 15), alone["reward_with_attempts"](text, [3, 5, 7], 15)) == worth


def test_only_what_is_needed_is_there():
    names = {node.name for node in ast.parse(source_of("parse")).body if isinstance(node, ast.FunctionDef)}
    assert names == {"parse", "_tokens", "_apply"}
    with pytest.raises(KeyError):
        source_of("no_such_function")

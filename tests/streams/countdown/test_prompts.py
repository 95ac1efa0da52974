"""Prompts and answers."""

import doctest

import pytest

from everlearn.streams.countdown import prompts
from everlearn.streams.countdown.prompts import PROMPTS, answer_of, prompt_of


def test_the_examples():
    assert doctest.testmod(prompts).failed == 0


@pytest.mark.parametrize("style", PROMPTS)
def test_a_prompt_says_all_that_a_problem_is(style):
    text = prompt_of([28, 46, 54], 97, "+/", style)
    assert all(part in text for part in ("28", "46", "54", "97", "+", "/"))
    assert "-" not in text.replace("<think>", "")


def test_an_answer_stands_in_tags():
    assert answer_of("1 + 2") == "<answer>1 + 2</answer>"

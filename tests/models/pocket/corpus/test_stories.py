import re
from random import Random

import pytest

from everlearn.models.pocket.corpus import stories, words

WORDS = {word: number for number, word in enumerate(words.NUMBER_WORDS)}


def numbers_in(text):
    for word, number in WORDS.items():
        text = re.sub(rf"\b{word}\b", str(number), text, flags=re.IGNORECASE)
    return [int(number) for number in re.findall(r"\d+", text)]


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_steps_are_right_and_end_in_the_answer(level):
    rng = Random(level)
    for _ in range(800):
        item = stories.draw(rng, level)
        results = []
        for step in item.steps.split("; "):
            expression, _, result = step.partition(" = ")
            assert eval(expression) == int(result), item
            results.append(result)
        assert results[-1] == item.answer


def test_the_story_tells_the_numbers_that_the_steps_use():
    rng = Random(7)
    for _ in range(1500):
        item = stories.draw(rng, 4)
        told, made = numbers_in(item.question), {2}  # 2: doubling and halving are told in words
        for step in item.steps.split("; "):
            left, right = re.findall(r"\d+", step.partition(" = ")[0])
            assert int(left) in [*told, *made], item
            assert int(right) in [*told, *made], item
            made.add(int(step.rpartition(" ")[2]))


def test_events_in_a_story_match_the_direction_of_its_steps():
    rng, n_checked = Random(8), 0
    for _ in range(1500):
        item = stories.draw(rng, 1)
        if " buys another " in item.question and item.steps.count(";") == 0 and "/" not in item.steps:
            assert "+" in item.steps
            n_checked += 1
        if " hands " in item.question and item.steps.count(";") == 0:
            assert "-" in item.steps
            n_checked += 1
    assert n_checked > 30

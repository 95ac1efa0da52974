import re
from random import Random

import pytest

from everlearn.models.pocket.corpus import arithmetic

EXPRESSION = re.compile(r"\d+(?: ?[-+*x/] ?\d+)+")
SAID = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_written_expressions_have_the_value_of_python(level):
    rng, n_checked = Random(level), 0
    for _ in range(2000):
        item = arithmetic.draw(rng, level)
        text = item.question
        for word, sign in SAID.items():
            text = text.replace(word, sign)
        found = EXPRESSION.search(text)
        if found and not any(word in item.question for word in ("Which", " or ", "The ")):
            assert eval(found[0].replace("x", "*")) == int(item.answer), item
            n_checked += 1
    assert n_checked > 700


def test_told_sums_and_differences():
    rng, n_checked = Random(0), 0
    for _ in range(4000):
        item = arithmetic.draw(rng, 3)
        numbers = [int(text) for text in re.findall(r"\d+", item.question)]
        if re.match(r"Add \d|Increase \d", item.question):
            assert int(item.answer) == sum(numbers)
            n_checked += 1
        if re.match(r"(Take|Subtract) \d", item.question):
            assert int(item.answer) == numbers[1] - numbers[0]
            n_checked += 1
        if re.match(r"Share \d", item.question):
            assert int(item.answer) * numbers[1] == numbers[0]
            n_checked += 1
    assert n_checked > 150


def test_numbers_grow_with_the_level():
    rng = Random(0)
    largest = [
        max(max(arithmetic.operands(rng, level, op)) for op in "+-*/" for _ in range(500)) for level in (1, 3, 5)
    ]
    assert largest[0] <= 36 < largest[1] < largest[2]

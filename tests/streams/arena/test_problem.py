"""The verifier, and a problem as a row."""

import random
from fractions import Fraction

import pytest

from everlearn.registry import find
from everlearn.streams.arena.problem import Problem, verify

NAMES = ["Anna", "Ben", "Mia"]


def row(answer: str, choices: list[str] | None = None) -> dict:
    return {"prompt": "", "completion": f" {answer}", "choices": choices}


@pytest.mark.parametrize(
    "completion",
    [
        " 12",
        "12.0",
        "$12",
        "12.",
        " 12 apples.",
        "12, because it grows",
        "+12",
        "\n12\nPattern: 3",
        "€ 12.00",
    ],
)
def test_a_number_counts_by_value(completion):
    assert verify(completion, row("12"))


@pytest.mark.parametrize(
    "completion",
    ["", "  \n ", "13", "120", "1 2", "x 12", "12 or 13", "12, 13", "12 + 1", "12th", "12%", "12k", "12/2", "-12"],
)
def test_another_number_or_no_number_is_wrong(completion):
    assert not verify(completion, row("12"))


@pytest.mark.parametrize(
    ("answer", "completions"),
    [
        ("4", ["4", "4.0", "$4", "four", "Four.", "four dollars", "4 dollars", "4 km", "4km", "+4", "€4.00", "4!"]),
        ("1234", ["1,234", "$1,234.00", "one thousand two hundred and thirty-four", "1234 pears."]),
        ("-3", ["-3", "−3", "-$3", "minus three", "negative 3", "-3.0"]),
        ("3/8", ["3/8", "6/16", "0.375", ".375", "37.5%", "three eighths", "3 out of 8", "3 / 8 of them", "3/8."]),
        ("1/2", ["half", "a half", "one half", "50 percent", "1/2", "0.50"]),
        ("25%", ["25%", "25", "25.0 %", "25 percent", "twenty-five per cent", "25% of it"]),
    ],
)
def test_equivalent_answers_are_right(answer, completions):
    assert [completion for completion in completions if not verify(completion, row(answer))] == []


@pytest.mark.parametrize(
    ("answer", "completions"),
    [
        ("4", ["four or five", "four hundred", "forty", "fourth", "8/2", "4 quarters", "four and a half", "4 times 2"]),
        ("4", ["4 apples or 5", "four five", "4 point five", "4 dozen", "4 percent", "4k", "4-5", "twenty fourth"]),
        ("3/8", ["3", "8", "3/9", "0.37", "38%", "3/8 or 1/2", "3/8/2", "3/0", "8/3", "three", "3 eighth", "3/80"]),
        ("25%", ["0.25", "1/4", "2.5%", "25 or 30%", "a quarter", "250%", "25k"]),
        ("-3", ["3", "three", "--3"]),
    ],
)
def test_other_values_and_hedges_are_wrong(answer, completions):
    assert [completion for completion in completions if verify(completion, row(answer))] == []


def test_a_fraction_counts_by_value_in_every_form():
    rng = random.Random(0)
    for _ in range(500):
        above, below, factor = rng.randint(1, 30), rng.randint(2, 32), rng.randint(1, 9)
        value = Fraction(above, below)
        other = Fraction(rng.randint(1, 30), rng.randint(2, 32))
        answer = f"{value.numerator}/{value.denominator}" if value.denominator > 1 else f"{above}/{below}"
        assert verify(f"{above * factor}/{below * factor}", row(answer))
        assert verify(f"{other.numerator}/{other.denominator}", row(answer)) == (other == value)
        assert verify(str(above / below), row(answer)) == (Fraction(str(above / below)) == value)


def test_numbers_with_thousands_separators_and_signs():
    assert verify("1,200", row("1200"))
    assert verify("-3", row("-3"))
    assert not verify("1,20", row("120"))
    assert not verify("12 thousand", row("12"))


@pytest.mark.parametrize(
    "completion", [" Mia", "Mia.", "mia is the oldest", "MIA!", "Mia is older than Anna", "Mia\nBen", "  mia \n"]
)
def test_a_word_must_come_first(completion):
    assert verify(completion, row("Mia", NAMES))


@pytest.mark.parametrize(
    "completion",
    [
        "not Mia",
        "Anna or Mia",
        "Mia or Anna",
        "Mia, Anna",
        "Mia/Ben",
        "Mia and Ben",
        "Mia is not",
        "Miau",
        "Ben",
        "",
    ],
)
def test_hedges_and_other_words_are_wrong(completion):
    assert not verify(completion, row("Mia", NAMES))


def test_an_article_is_allowed_and_choices_are_optional():
    assert verify("the kite", row("kite"))
    assert verify("Kite", {"prompt": "", "completion": " kite"})
    assert not verify("the drum", row("kite"))
    assert not verify("the", row("kite"))


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("It is 12", ["It is 12", "it is 12.", "It is 12 pears"],
         ["It is 12.5", "It is 12,000", "It is 12/5", "It is 12 13", "It is -12", "It is 12 or 13", "It was 12", "12"]),
        ("It is -3", ["It is -3"], ["It is 3"]),
        ("March 5", ["March 5", "march 5."], ["March 5, March 6", "March 5.5", "March 15", "May 5", "March"]),
        ("4", ["4", "**4**", "\uff14"], ["4" * 5000, "4 to 5", "4 x 4"]),
    ],
)  # fmt: skip
def test_numbers_in_sentences_and_hedged_numbers(answer, right, wrong):
    row = {"prompt": "?", "completion": f" {answer}"}
    assert [text for text in right if not verify(text, row)] == []
    assert [text for text in wrong if verify(text, row)] == []


def test_another_choice_of_several_words_is_a_hedge():
    row = {"prompt": "?", "completion": " It is Mia", "choices": ["It is Mia", "It is Anna"]}
    assert verify("It is Mia.", row)
    assert not verify("It is Mia, Anna", row)


def test_answers_of_rules():
    verdicts = ["yes", "no", "unknown"]
    assert verify("Unknown.", row("unknown", verdicts))
    assert not verify("yes or no", row("yes", verdicts))
    assert not verify("no unknown", row("no", verdicts))


def test_a_problem_becomes_a_row():
    problem = Problem("math", 1, "1 + 1\nAnswer:", "2", (), "1 + 1 = 2", "1 + 1")
    assert problem.row() == {"prompt": "1 + 1\nAnswer:", "completion": " 2"}
    named = Problem("logic", 1, "Who?\nAnswer:", "Mia", ("Anna", "Mia"), "", "Mia")
    assert named.row()["choices"] == ["Anna", "Mia"]


def test_the_verifier_is_registered():
    assert find("verifier", "arena") is verify

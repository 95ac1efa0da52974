"""The verifier, and a problem as a row."""

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

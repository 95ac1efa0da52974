"""Numbers in digits and words, read back from how they are spelled."""

import random
from fractions import Fraction

import pytest

from everlearn.streams.arena.numbers import Number, read_number, same_number

UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def spell(number: int, hyphen: str = "-", link: str = " and ") -> str:
    if number < 20:
        return UNITS[number]
    if number < 100:
        return TENS[number // 10] + (hyphen + UNITS[number % 10] if number % 10 else "")
    size, word = (100, "hundred") if number < 1000 else (1000, "thousand")
    joint = link if size == 100 else " "
    rest = joint + spell(number % size, hyphen, link) if number % size else ""
    return f"{spell(number // size, hyphen, link)} {word}{rest}"


@pytest.mark.parametrize(("hyphen", "link"), [("-", " and "), (" ", " ")])
def test_every_number_below_a_thousand_is_read_in_words(hyphen, link):
    for number in range(1000):
        assert read_number(spell(number, hyphen, link)) == Number(Fraction(number), "plain", "")


def test_larger_numbers_and_signs_in_words():
    rng = random.Random(0)
    for number in [1000, 12_000, 999_999, *(rng.randrange(1000, 1_000_000) for _ in range(300))]:
        assert read_number(f"minus {spell(number)} pears") == Number(Fraction(-number), "plain", " pears")


def test_digits_with_currency_separators_and_decimals():
    rng = random.Random(1)
    for _ in range(500):
        value = Fraction(rng.randrange(-(10**8), 10**8), 100)
        text = f"{float(abs(value)):,.2f}"
        for form in (text, text.replace(",", ""), f"${text}"):
            assert read_number(("-" if value < 0 else "") + form) == Number(value, "plain", "")


@pytest.mark.parametrize(
    ("text", "value", "form", "rest"),
    [
        ("3/8 of it", Fraction(3, 8), "fraction", " of it"),
        ("3 out of 8", Fraction(3, 8), "fraction", ""),
        ("three eighths", Fraction(3, 8), "fraction", ""),
        ("a third", Fraction(1, 3), "fraction", ""),
        ("half of it", Fraction(1, 2), "fraction", " of it"),
        ("50%", 50, "percentage", ""),
        ("fifty per cent", 50, "percentage", ""),
        ("3/0", 3, "plain", "/0"),
        ("twenty fifth", 20, "plain", " fifth"),
        ("1,20", 1, "plain", ",20"),
    ],
)
def test_forms(text, value, form, rest):
    assert read_number(text) == Number(Fraction(value), form, rest)


@pytest.mark.parametrize("text", ["", "mia", "x = 3", "about 3", "a hat", "-", "$", "minus", "thirds", "onerous"])
def test_other_texts_begin_with_no_number(text):
    assert read_number(text) is None


def test_the_wanted_form_says_what_is_the_same():
    third, tenth, ten = Fraction(1, 3), Fraction(1, 10), Fraction(10)
    forms = {
        "plain": Number(ten, "plain", ""),
        "percentage": Number(ten, "percentage", ""),
        "fraction": Number(tenth, "fraction", ""),
        "decimal": Number(tenth, "plain", ""),
        "other": Number(third, "fraction", ""),
    }
    agreeing = {
        wanted: {given for given in forms if same_number(forms[given], forms[wanted])}
        for wanted in ("plain", "percentage", "fraction")
    }
    assert agreeing == {
        "plain": {"plain"},
        "percentage": {"plain", "percentage"},
        "fraction": {"fraction", "decimal", "percentage"},
    }

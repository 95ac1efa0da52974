"""The number at the beginning of an answer, in digits or words: whole, decimal, a fraction or a percentage."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

_DIGITS = re.compile(
    r"(?:([+-]?)[$€£]?|[$€£]\s*([+-]))\s*"  # -$3 or $-3
    r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)
_SIGN = re.compile(r"(?:minus|negative)\s+")
_OVER = re.compile(r"\s*(?:/|out\s+of\b)\s*")
_PERCENT = re.compile(r"\s*(?:%|per\s?cent\b)")
_ONE_PART = re.compile(r"(?:an?\s+)?(half\b|(?<=\s)[a-z]+)\b")  # "half", "a half", "a third"
_WORD = re.compile(r"[\s-]*([a-z]+)\b")
_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_PARTS = {
    **{"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8},
    **{"ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "hundredth": 100},
}
_PLURALS = {"halves" if word == "half" else word + "s": part for word, part in _PARTS.items()}
_MOST_DIGITS = 100  # of a number; Python itself refuses some thousands
_LONGEST = 5  # words of a number below a thousand, as in "nine hundred and ninety-nine"
NUMBER_WORDS = frozenset({*_ONES, *_TENS, *_PARTS, *_PLURALS, "hundred", "thousand", "million", "dozen", "point"})


@dataclass(frozen=True, slots=True)
class Number:
    """What a text begins with: the value as it is written (50 for `50%`), how it is written, and what follows."""

    value: Fraction
    form: Literal["plain", "fraction", "percentage"]
    rest: str


def read_number(text: str) -> Number | None:
    """Return the number that a text in lower case begins with, or None.

    Read are digits with a sign, a currency, separators of thousands and decimals; words up to 999,999; `3/8`,
    `3 out of 8`, `three eighths` and `half`; `50%` and `fifty percent`.
    """
    text = text.replace("−", "-")
    if (one_part := _ONE_PART.match(text)) and one_part[1] in _PARTS:
        return Number(Fraction(1, _PARTS[one_part[1]]), "fraction", text[one_part.end() :])
    found = _read(text)
    if found is None:
        return None
    value, rest = found
    if over := _OVER.match(rest):
        below = _read(rest[over.end() :])
        if below is not None and below[0] > 0:
            return Number(value / below[0], "fraction", below[1])
    if percent := _PERCENT.match(rest):
        return Number(value, "percentage", rest[percent.end() :])
    if part := _WORD.match(rest):
        known = _PARTS if value == 1 else _PLURALS  # "twenty fifth" is no fraction
        if part[1] in known:
            return Number(value / known[part[1]], "fraction", rest[part.end() :])
    return Number(value, "plain", rest)


def same_number(given: Number, wanted: Number) -> bool:
    """Return whether two numbers agree, where the form of the wanted one says what else is read as it.

    A fraction may be given in any form. A percentage may be given without its sign, but not as a fraction of one. A
    plain number may not be left as a fraction.
    """
    if wanted.form == "fraction":
        return (given.value / 100 if given.form == "percentage" else given.value) == wanted.value
    return given.value == wanted.value and given.form in ("plain", wanted.form)


def _read(text: str) -> tuple[Fraction, str] | None:
    """Return the plain number that a text begins with, and the rest of it."""
    if digits := _DIGITS.match(text):
        before, after, number = digits.groups()
        if len(number) > _MOST_DIGITS:
            return None
        value = Fraction(number.replace(",", ""))
        return -value if "-" in (before, after) else value, text[digits.end() :]
    if sign := _SIGN.match(text):
        found = _read(text[sign.end() :])
        return None if found is None else (-found[0], found[1])
    found = _read_words(text)
    if found is None:
        return None
    value, rest = found
    thousand = _WORD.match(rest)
    if thousand and thousand[1] == "thousand":
        below, rest = _read_words(rest[thousand.end() :]) or (0, rest[thousand.end() :])
        value = value * 1000 + below
    return Fraction(value), rest


def _read_words(text: str) -> tuple[int, str] | None:
    """Return the number below a thousand that is spelled by most of the first words, and the rest of the text."""
    best, words, end = None, [], 0
    while len(words) < _LONGEST and (word := _WORD.match(text, end)):
        words.append(word[1])
        end = word.end()
        if (value := _SPELLED.get(" ".join(words))) is not None:
            best = value, text[end:]
    return best


def _spell() -> dict[str, int]:
    spelled = {word: value for value, word in enumerate(_ONES)}
    for tens, word in enumerate(_TENS, start=2):
        spelled |= {word: 10 * tens} | {f"{word} {_ONES[one]}": 10 * tens + one for one in range(1, 10)}
    below = [(word, value) for word, value in spelled.items() if value]
    for hundreds, word in [*enumerate(_ONES[1:10], start=1), (1, "a")]:
        spelled[f"{word} hundred"] = 100 * hundreds
        for link in ("", "and "):
            spelled |= {f"{word} hundred {link}{words}": 100 * hundreds + value for words, value in below}
    return spelled


_SPELLED = _spell()

"""What an arena problem is, how one is asked, and when an answer to it counts as right."""

import random
import re
import unicodedata
from typing import Any, NamedTuple, Protocol, Self

from everlearn.registry import register
from everlearn.streams.arena.numbers import NUMBER_WORDS, Number, read_number, same_number
from everlearn.types import Row

CUE = "\nAnswer:"
DIFFICULTIES = (1, 2, 3, 4, 5)

_ARTICLES = ("the", "a", "an")
_HEDGES = frozenset({"or", "and", "nor", "but", "not", "isn't", "isnt", "hundred", "thousand", "million"})
_OPERATIONS = frozenset({"times", "plus", "minus", "divided", "x", "to", "through"})
_NUMBER_IN_SENTENCE = re.compile(r"(?<=\s)[-+]?[$€£]?[0-9]")
_UNITS = re.compile(r"(?:mm|cm|km|kg)\b")  # that may stand right after a number, where `12k` is another value
_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")


class Problem(NamedTuple):
    """A question with one right answer.

    `prompt` ends in a line `Answer:`. `choices` are all the answers that the wording allows, empty where the answer
    is a number. `content` is what makes two problems the same item, whatever their wording: each type says what it is.
    """

    type: str
    difficulty: int
    prompt: str
    answer: str
    choices: tuple[str, ...]
    explanation: str
    content: str

    @property
    def completion(self) -> str:
        """The text that follows the prompt: a space and the answer."""
        return f" {self.answer}"

    def row(self) -> dict[str, Any]:
        """Return the problem as a row of a `prompt` task; `choices` only where there are any."""
        row: dict[str, Any] = {"prompt": self.prompt, "completion": self.completion}
        return {**row, "choices": list(self.choices)} if self.choices else row


class Puzzle(Protocol):
    """What `@register("problem", NAME)` expects: facts that are drawn first and put into words only when wanted.

    The two steps are apart because an item's pool is known from its content: an item of another pool is thrown away
    before any text is written.
    """

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the facts of one problem."""

    def content(self) -> str:
        """Return what makes two problems the same item."""

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Put the facts into words, drawing the wording from `rng`. `content`: what `content()` returned."""


@register("verifier", "arena")
def verify(completion: str, row: Row) -> bool:
    """Return whether a completion gives the answer of its row, and no other.

    Read is the first line of the stripped completion, in lower case and without its final period. A number counts by
    value (`12.0`, `$12`, `12 pears` and `twelve` are 12; `12 or 13`, `12 + 1`, `24/2` and `120` are not). Where the
    answer is a fraction, `6/16`, `0.375`, `37.5%` and `three eighths` are 3/8, but `0.37` is not; where it is a
    percentage, `50%`, `50` and `fifty percent` are the same, but `0.5` is not. A word answer must come first, after at
    most an article (`Mia.` and `mia is the oldest` give Mia; `not Mia`, `Mia or Anna` and `Mia, Anna` do not).

    Args:
        completion: what the model wrote after the prompt.
        row: holds the right answer in `completion`, and optionally all possible ones in `choices`.

    Returns:
        True if the answer is right.
    """
    lines = completion.strip().lower().splitlines()
    if not lines:
        return False
    given = unicodedata.normalize("NFKC", lines[0]).strip().strip("*_`").strip().removesuffix(".")
    answer = row["completion"].strip().lower()
    wanted = read_number(answer)
    if wanted is not None and not wanted.rest:
        return _is_number(given, wanted)
    if found := _NUMBER_IN_SENTENCE.search(answer):
        return _is_sentence(given, answer[: found.start()], answer[found.start() :])
    return _is_word(given, answer, [choice.lower() for choice in row.get("choices") or ()])


def _is_sentence(given: str, before: str, number: str) -> bool:
    """Return whether the words of `before` come first, then the number and no other."""
    words = r"\W+".join(map(re.escape, _WORD.findall(before)))
    found, wanted = re.match(rf"\W*{words}\s+", given), read_number(number)
    if found is None or wanted is None:
        return False
    rest = given[found.end() :]
    return _is_number(rest, wanted) and not any(c.isdigit() for c in read_number(rest).rest)


def _is_number(given: str, wanted: Number) -> bool:
    number = read_number(given)
    if number is None or not same_number(number, wanted):
        return False
    rest = number.rest
    if rest and rest[0].isalnum() and not _UNITS.match(rest):  # 12th and 12k are other values
        return False
    words = _WORD.findall(rest)
    if "or" in words:
        return False
    return not words or not (words[0][0].isdigit() or words[0] in _HEDGES | _OPERATIONS | NUMBER_WORDS)


def _is_word(given: str, answer: str, choices: list[str]) -> bool:
    words, wanted = _WORD.findall(given), _WORD.findall(answer)
    if words[:1] and words[0] in _ARTICLES and wanted[0] not in _ARTICLES:
        words = words[1:]
    if words[: len(wanted)] != wanted:
        return False
    following = words[len(wanted) :]
    if not following:
        return True
    others = {word for choice in choices for word in _WORD.findall(choice)} - set(wanted)
    return following[0] not in _HEDGES and "not" not in following[:2] and following[0] not in others

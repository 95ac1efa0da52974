"""Whether a response solves a problem, and what it is worth. Nothing is ever evaluated as code.

>>> judge("So: <answer>3 * (5 - 1)</answer>", [1, 3, 5], 12)
<Verdict.RIGHT: 'right'>
>>> reward("<answer>3 + 5 + 1</answer>", [1, 3, 5], 12)
0.1
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import Any

from everlearn.registry import register
from everlearn.streams.countdown.expression import Expression, parse
from everlearn.streams.countdown.groups import OPERATORS

RIGHT, FORM = 1.0, 0.1
ATTEMPT, ALL_ATTEMPTS = 0.01, 0.1
OPEN, CLOSE = "<answer>", "</answer>"
MAX_ATTEMPTS = 100  # that are read in one response
MAX_THOUGHT = 32_000  # characters of it that are read

_LIKE_EXPRESSION = re.compile(r"[0-9(][-+*/() \t0-9]*")


class Verdict(StrEnum):
    """What a response is: the answer's faults in the order in which they are looked for."""

    NO_ANSWER = "no answer"  # no <answer>…</answer>
    NO_EXPRESSION = "no expression"
    WRONG_NUMBERS = "wrong numbers"  # one is missing, used twice, or not given
    WRONG_OPERATOR = "wrong operator"
    DIVIDES_BY_ZERO = "divides by zero"
    WRONG_VALUE = "wrong value"
    RIGHT = "right"

    @property
    def well_formed(self) -> bool:
        """Whether there is an answer and it is an expression."""
        return self not in (Verdict.NO_ANSWER, Verdict.NO_EXPRESSION)


def judge(text: str, numbers: Sequence[int], target: int, operators: str = OPERATORS) -> Verdict:
    """Return the verdict on the last `<answer>…</answer>` of a response.

    Right is an expression (see `parse`) that uses each of the numbers exactly once and no operator but the given
    ones, and comes to the target exactly: 1/3 * 3 is 1.

    Cost: linear in the text's length; tens of µs for four numbers, some ms for a million characters.
    """
    content = _last_answer(text)
    if content is None:
        return Verdict.NO_ANSWER
    expression = parse(content)
    if expression is None:
        return Verdict.NO_EXPRESSION
    fault = _fault(expression, sorted(numbers), operators)
    if fault is not None:
        return fault
    return Verdict.RIGHT if expression.value == target else Verdict.WRONG_VALUE


def reward(text: str, numbers: Sequence[int], target: int, operators: str = OPERATORS) -> float:
    """Return 1.0 for a right answer, 0.1 for a wrong one that is an expression, 0 for none.

    Source: J. Pan et al., TinyZero, 2025, its reward for Countdown. Departs: there anything in the tags is worth 0.1.
    """
    verdict = judge(text, numbers, target, operators)
    return RIGHT if verdict is Verdict.RIGHT else FORM * verdict.well_formed


def reward_with_attempts(text: str, numbers: Sequence[int], target: int, operators: str = OPERATORS) -> float:
    """Return 1.0 for a right answer, else 0.01 for each different value tried in `<think>`, 0.1 at most.

    An attempt is an expression between `<think>` (or the beginning, where the prompt ends in it) and `</think>` that
    uses each number exactly once, and no operator but the given ones. The first 100 are read, in the first
    32,000 characters.
    """
    if judge(text, numbers, target, operators) is Verdict.RIGHT:
        return RIGHT
    given, values = sorted(numbers), set()
    for content in _attempts(text):
        expression = parse(content)
        if expression is not None and _fault(expression, given, operators) is None:
            values.add(expression.value)
    return min(ALL_ATTEMPTS, ATTEMPT * len(values))


@register("verifier", "countdown")
def verify(completion: str, row: dict[str, Any]) -> bool:
    """Return whether a completion solves the problem of its row: `numbers`, `target`, and `operators` (or all four).

    A prompt that ends in `<answer>` has the completion go on from there; then `</answer>` may be missing.
    """
    prompt = row.get("prompt")
    text = from_tag(prompt, completion) if isinstance(prompt, str) else completion
    return judge(text, *problem_of(row)) is Verdict.RIGHT


def from_tag(prompt: str, completion: str) -> str:
    """Return a completion with the `<answer>` that its prompt ends in, and `</answer>` where that is missing then."""
    if not prompt.rstrip().endswith(OPEN):
        return completion
    return OPEN + completion + ("" if CLOSE in completion else CLOSE)


def problem_of(row: Mapping[str, Any]) -> tuple[Sequence[int], int, str]:
    """Return the numbers, the target and the operators (all four, unless the row names them) of a row."""
    return row["numbers"], row["target"], row.get("operators") or OPERATORS


def _last_answer(text: str) -> str | None:
    """Return what stands in the last pair of tags."""
    start = text.rfind(OPEN, 0, max(0, text.rfind(CLOSE)))
    return None if start < 0 else text[start + len(OPEN) : text.find(CLOSE, start)]


def _fault(expression: Expression, given: list[int], operators: str) -> Verdict | None:
    if sorted(expression.numbers) != given:
        return Verdict.WRONG_NUMBERS
    if not expression.operators <= set(operators):
        return Verdict.WRONG_OPERATOR
    return Verdict.DIVIDES_BY_ZERO if expression.value is None else None


def _attempts(text: str) -> Iterator[str]:
    """Return what looks like an expression in the reasoning; `3 + 5` of `3 + 5 = 8`."""
    before, closed, _ = text.partition("</think>")
    without, opened, after = before.partition("<think>")
    thought = (after if opened else without) if closed else ""
    found = (match.group().rstrip("+-*/( \t") for match in _LIKE_EXPRESSION.finditer(thought[:MAX_THOUGHT]))
    return islice((content for content in found if any(sign in content for sign in OPERATORS)), MAX_ATTEMPTS)

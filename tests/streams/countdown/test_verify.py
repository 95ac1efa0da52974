"""Verdicts and rewards, the published problems, and hostile responses."""

import doctest
import json
import time

import pytest

from everlearn.registry import find
from everlearn.streams.countdown import verify as module
from everlearn.streams.countdown.solver import solve
from everlearn.streams.countdown.verify import Verdict, judge, reward, reward_with_attempts, verify

NUMBERS, TARGET = [3, 5, 9], 17


def test_the_examples():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<answer>3 + 5 + 9</answer>", Verdict.RIGHT),
        ("<think>9 + 3</think>\n<answer> (9+5) + 3\n</answer> Done.", Verdict.RIGHT),
        ("<answer>1</answer> no: <answer>3 + 5 + 9</answer>", Verdict.RIGHT),
        ("<answer>3 + 5 + 9</answer> <answer>", Verdict.RIGHT),
        ("<answer>3 + 5 + 9</answer> or <answer>3</answer>", Verdict.WRONG_NUMBERS),
        ("<answer>3 + 5 * 9</answer>", Verdict.WRONG_VALUE),
        ("<answer>3 + 5 + 9 = 17</answer>", Verdict.NO_EXPRESSION),
        ("<answer>17</answer>", Verdict.WRONG_NUMBERS),
        ("<answer>3 + 5 + 9 + 0</answer>", Verdict.WRONG_NUMBERS),
        ("<answer>3 + 3 + 5 + 9</answer>", Verdict.WRONG_NUMBERS),
        ("<answer>39 + 5</answer>", Verdict.WRONG_NUMBERS),
        ("<answer>5 / (9 - 3 * 3)</answer>", Verdict.WRONG_NUMBERS),
        ("<answer></answer>", Verdict.NO_EXPRESSION),
        ("<answer><answer>3 + 5 + 9</answer></answer>", Verdict.RIGHT),
        ("<answer>3 + 5 + 9", Verdict.NO_ANSWER),
        ("3 + 5 + 9</answer>", Verdict.NO_ANSWER),
        ("</answer>3 + 5 + 9<answer>", Verdict.NO_ANSWER),
        ("<Answer>3 + 5 + 9</Answer>", Verdict.NO_ANSWER),
        ("", Verdict.NO_ANSWER),
    ],
)
def test_verdicts(text, verdict):
    assert judge(text, NUMBERS, TARGET) is verdict
    assert reward(text, NUMBERS, TARGET) == (1.0 if verdict is Verdict.RIGHT else 0.1 if verdict.well_formed else 0.0)


def test_operators_and_division_by_zero():
    assert judge("<answer>3 * 4</answer>", [3, 4], 12, "+-") is Verdict.WRONG_OPERATOR
    assert judge("<answer>3 * 4</answer>", [3, 4], 12, "+*") is Verdict.RIGHT
    assert judge("<answer>3 / (4 - 4)</answer>", [3, 4, 4], 0) is Verdict.DIVIDES_BY_ZERO
    assert judge("<answer>8 / (3 - 8 / 3)</answer>", [3, 3, 8, 8], 24) is Verdict.RIGHT  # not in floating point
    assert judge("<answer>1 / 3</answer>", [1, 3], 0) is Verdict.WRONG_VALUE


def test_attempts_are_worth_something_where_the_answer_is_wrong():
    thought = "<think>Try 3 + 5 * 9 = 48, (3 + 5) * 9 = 72; 9*5+3 = 48 again, 3 + 9 = 12, 3 - 5 - 9.</think>"
    wrong = thought + "<answer>3 * 5 + 9</answer>"
    assert reward_with_attempts(wrong, NUMBERS, TARGET) == pytest.approx(0.03)  # 48, 72, -11
    assert reward_with_attempts(wrong.replace("<think>", ""), NUMBERS, TARGET) == pytest.approx(0.03)
    assert reward_with_attempts(wrong, NUMBERS, TARGET, "+*") == pytest.approx(0.02)
    assert reward_with_attempts(wrong.replace("</think>", ""), NUMBERS, TARGET) == 0.0
    assert reward_with_attempts(thought + "<answer>3 + 5 + 9</answer>", NUMBERS, TARGET) == 1.0
    many = " ".join(f"1 * 2 * 3 * {n} =" for n in range(4, 40)) + "".join(
        f" {a} {x} {b} {y} {c}," for a, b, c in ([1, 2, 3], [3, 1, 2], [2, 3, 1]) for x in "+-*/" for y in "+-*/"
    )
    assert reward_with_attempts(f"<think>{many}</think>", [1, 2, 3], 100) == pytest.approx(0.1)


def test_the_verifier_of_rows():
    assert find("verifier", "countdown") is verify
    row = {"numbers": NUMBERS, "target": TARGET, "operators": "+"}
    assert verify("<answer>9 + 5 + 3</answer>", row)
    assert not verify("9 + 5 + 3", row)
    assert not verify("<answer>9 + 5 * 3</answer>", row)
    assert verify("<answer>9 * 3 - 5 - 5</answer>", {"numbers": [9, 3, 5, 5], "target": 17})
    asked = {**row, "prompt": "Numbers 3 5 9 use + target 17.\n<answer>"}
    assert verify("9 + 5 + 3", asked)
    assert verify("9 + 5 + 3</answer> and more", asked)
    assert not verify("9 + 5", asked)


@pytest.mark.real_data
def test_the_published_problems_verify(shared_data):
    lines = (shared_data / "countdown" / "published_samples.jsonl").read_text(encoding="utf-8").splitlines()
    problems = [json.loads(line) for line in lines]
    assert len(problems) == 50
    for problem in problems:
        steps = problem["solution_steps"]
        solution = joined(steps) if steps else solve(problem["numbers"], problem["target"])[0]
        assert reward(f"<answer>{solution}</answer>", problem["numbers"], problem["target"]) == 1.0, problem


def joined(steps: list[str]) -> str:
    """Return steps such as `8*9=72` as one expression: each result that a later step uses, put into it."""
    made: list[tuple[str, str]] = []
    text = ""
    for step in steps:
        text, _, result = step.partition("=")
        sign = next(sign for sign in "+-*/" if sign in text)
        sides = []
        for number in text.split(sign):
            match = next((one for one in reversed(made) if one[0] == number), None)
            if match is not None:
                made.remove(match)
            sides.append(match[1] if match is not None else number)
        text = f"({sign.join(sides)})"
        made.append((result, text))
    return text


MILLION = 1_000_000
HOSTILE = {
    "nested": "(" * (MILLION // 2) + "1" + ")" * (MILLION // 2),
    "one number": "9" * MILLION,
    "sum": "1+" * (MILLION // 2),
    "powers": "9**" * (MILLION // 3) + "9",
    "open tags": "<answer>" * (MILLION // 8),
    "empty tags": "<answer></answer>" * (MILLION // 17),
    "close tags": "</answer>" * (MILLION // 9),
    "spaces": " " * MILLION,
    "other digits": "٣" * MILLION,
    "attempts": "3+5+9 " * (MILLION // 6),
    "numbers": "3 a " * (MILLION // 4),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("around", ["{}", "<answer>{}</answer>", "<think>{}</think><answer>{}</answer>"])
def test_a_million_characters_get_a_verdict_at_once(name, around):
    text = around.replace("{}", HOSTILE[name])
    started = time.process_time()
    assert judge(text, NUMBERS, TARGET) is not Verdict.RIGHT
    assert reward_with_attempts(text, NUMBERS, TARGET) <= 0.1
    assert time.process_time() - started < 0.3  # some ms; what is quadratic takes minutes

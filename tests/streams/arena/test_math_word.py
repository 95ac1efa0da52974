"""Word problems, worked out again from the sentences of the prompt and from the stored calculation."""

import re

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.math_word import LARGEST, STEPS

OPERATIONS = (  # words of an event and what it does
    (r"buys|brings|finds", lambda total, k: total + k),
    (r"gives|loses|takes away", lambda total, k: total - k),
    (r"times", lambda total, k: total * k),
    (r"parts|shared", lambda total, k: total / k),
)


def work_out(prompt: str) -> list[float]:
    """Return the totals after the start and after each event."""
    totals: list[float] = []
    for sentence in re.split(r"[.?] ", prompt):
        number = re.search(r"\d+", sentence)
        if number and not totals:
            totals.append(int(number.group()))
        elif number:
            (operation,) = [does for words, does in OPERATIONS if re.search(words, sentence)]
            totals.append(operation(totals[-1], int(number.group())))
    return totals


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_story_the_calculation_and_the_answer_agree(difficulty):
    for index in range(300):
        problem = problem_at("math", index, difficulty=difficulty)
        totals = work_out(problem.prompt)
        steps = [step.split(" = ") for step in problem.explanation.split("; ")]
        assert all(re.fullmatch(r"\d+ [-+*/] \d+", calculation) for calculation, _ in steps)
        assert [eval(calculation) for calculation, _ in steps] == totals[1:] == [int(total) for _, total in steps]
        assert totals[-1] == int(problem.answer), problem
        assert len(totals) == 1 + STEPS[difficulty]
        assert all(total == int(total) and 1 <= total <= 2 * LARGEST[difficulty] for total in totals)
        assert max(int(number) for number in re.findall(r"\d+", problem.prompt)) <= LARGEST[difficulty]


def test_content_is_the_calculation_without_names():
    problem = problem_at("math", 0, difficulty=5)
    assert re.findall(r"\d+", problem.content) == re.findall(r"\d+", problem.prompt)
    assert not re.search("[A-Za-z]", problem.content)


def test_all_operations_appear_and_scaling_never_follows_scaling():
    contents = [problem_at("math", index, difficulty=5).content for index in range(500)]
    assert {operation for content in contents for operation in re.findall(r"[-+*/]", content)} == set("+-*/")
    assert not any(re.search(r"[*/] \d+ [*/]", content) for content in contents)

"""Programs, run again by a Python of their own."""

import json
import re
import subprocess
import sys

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.short_program import PROGRAMS, Skeleton, skeletons


def run_all(programs: list[str]) -> list[str]:
    """Return what each program prints, run as it is written, each with names of its own, in one new interpreter."""
    script = "import sys, json\nfor program in json.load(sys.stdin):\n    exec(program, {})\n    print('\\0', end='')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], input=json.dumps(programs), capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


def test_a_real_interpreter_prints_the_answers():
    problems = [problem_at("code", index, difficulty=1 + index % 5) for index in range(1500)]
    printed = run_all([problem.content for problem in problems])
    assert printed == [f"{problem.answer}\n" for problem in problems]
    assert all(problem.content in problem.prompt for problem in problems)


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_answers_are_short_and_are_a_number_or_a_word(difficulty):
    for index in range(500):
        answer = problem_at("code", index, difficulty=difficulty).answer
        assert re.fullmatch(r"-?\d{1,6}|[a-z]{1,6}", answer), answer


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_every_program_appears_and_every_skeleton_runs(difficulty):
    contents = [problem_at("code", index, difficulty=difficulty).content for index in range(400)]
    shapes = {re.sub(r"'\w+'|\d+|[-+*<>]|!=", "", content) for content in contents}
    programs = skeletons(difficulty)
    assert len(programs) == len(PROGRAMS[difficulty]) == len({shape.strip() for shape in shapes})
    for skeleton in (skeleton for variants in programs for skeleton in variants):
        constants = {hole: "basket" if hole == "WORD" else 3 for hole in skeleton.holes}
        assert skeleton.run(constants)[0]


def test_the_explanation_is_the_trace():
    (skeleton,) = [s for variants in skeletons(3) for s in variants if "i * {K}" in s.text and "x + i" in s.text]
    assert skeleton.run({"A": 5, "N": 3, "K": 2}) == ("11", ["x = 5", "x = 5", "x = 7", "x = 11"])


def test_a_program_reaches_nothing_else():
    skeleton = skeletons(1)[0][0]
    assert set(skeleton.code.co_names) == {"x", "y", "print", "note", *skeleton.holes}
    with pytest.raises(NameError):
        Skeleton("", (), compile("open('x')", "", "exec")).run({})
    with pytest.raises(ImportError):
        Skeleton("", (), compile("import os", "", "exec")).run({})

"""Analogies, completed again by fitting every family of rules to the examples that the prompt shows."""

import re
from fractions import Fraction

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.analogy import RELATIONS

PAIR = re.compile(r"(\w+) is to (\w+)")
ASKED = re.compile(r"(?:same way, |, as |And |What is )(\w+) (?:is to|to, then)")
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def read(prompt: str) -> tuple[list[tuple[str, str]], str]:
    asked = ASKED.search(prompt).group(1)
    return [pair for pair in PAIR.findall(prompt) if pair[0] != asked], asked


def on_the_line(pairs: list[tuple[int, int]], asked: int) -> set[str]:
    """Return what the line through two points says: it covers sums, factors, and both together."""
    (x, y), (u, v) = pairs
    return {str(y + Fraction(v - y, u - x) * (asked - x))}


def moved(text: str, step: int) -> str:
    return "".join(ALPHABET[(ALPHABET.index(letter) + step) % 26] for letter in text)


def by_letters(pairs: list[tuple[str, str]], asked: str) -> set[str]:
    """Return what each order of the letters with each step says, where it fits the example."""
    turns = (lambda s: s, lambda s: s[::-1], lambda s: s[1:] + s[0], lambda s: s[-1] + s[:-1])
    rules = [(turn, step) for turn in turns for step in range(26)]
    fitting = [(turn, step) for turn, step in rules if all(moved(turn(a), step) == b for a, b in pairs)]
    assert len(fitting) == 1, pairs
    return {moved(turn(asked), step) for turn, step in fitting}


def by_labels(pairs: list[tuple[str, str]], asked: str) -> set[str]:
    steps = {(ALPHABET.index(b[0]) - ALPHABET.index(a[0])) % 26 for a, b in pairs}
    assert len(steps) == 1
    (number,) = on_the_line([(int(a[1:]), int(b[1:])) for a, b in pairs], int(asked[1:]))
    return {moved(asked[0], steps.pop()) + number}


def by_relation(pairs: list[tuple[str, str]], asked: str, offered: tuple[str, ...]) -> set[str]:
    """Return what is offered and stands to `asked` as in the example, by any relation that fits the example."""
    ((first, second),) = pairs
    found = set()
    for entries in RELATIONS.values():
        sources = {entry.split()[0]: entry.split()[1:] for entry in entries.split(", ")}
        if first in sources.get(second, ()):
            found |= {word for word in offered if asked in sources.get(word, ())}
    return found


def completions(prompt: str, offered: tuple[str, ...]) -> set[str]:
    pairs, asked = read(prompt)
    if offered:
        return by_relation(pairs, asked, offered)
    if asked.isdigit():
        return on_the_line([(int(a), int(b)) for a, b in pairs], int(asked))
    return by_letters(pairs, asked) if asked.isalpha() else by_labels(pairs, asked)


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_every_fitting_rule_gives_the_answer(difficulty):
    for index in range(1000):
        problem = problem_at("analogy", index, difficulty=difficulty)
        assert completions(problem.prompt, problem.choices) == {problem.answer}, problem


def test_what_is_offered_stands_in_the_prompt():
    for index in range(300):
        problem = problem_at("analogy", index, difficulty=1 + index % 3)
        if problem.choices:
            listed = re.search(r"It is one of (.*)\.", problem.prompt).group(1)
            assert sorted(re.split(", | and ", listed)) == list(problem.choices)


def test_no_word_comes_from_two_of_a_relation():
    for rule, entries in RELATIONS.items():
        firsts = [first for entry in entries.split(", ") for first in entry.split()[1:]]
        assert len(set(firsts)) == len(firsts), rule


def test_steps_apply_the_rule_to_each_pair():
    rules = set()
    for index in range(400):
        problem = problem_at("analogy", index, difficulty=1 + index % 5)
        pairs, asked = read(problem.prompt)
        steps = problem.explanation.split("; ")
        for (first, second), step in zip([*pairs, (asked, problem.answer)], steps, strict=True):
            assert {first, second} <= set(re.findall(r"\w+?(?=s work)|\w+", step)) | set(re.findall(r"\w+", step))
        rules |= {re.sub(r"-?\d+", "#", problem.explanation)} if asked.isdigit() else set()
    assert {"# + # = #", "# - # = #", "# * # = #", "# / # = #", "# * # + # = #"} <= {
        step for rule in rules for step in rule.split("; ")
    }


def test_content_is_the_pairs_with_the_answer():
    problem = problem_at("analogy", 1, difficulty=5)
    pairs, asked = read(problem.prompt)
    assert problem.content == " ".join([*sorted(":".join(pair) for pair in pairs), f"{asked}:{problem.answer}"])

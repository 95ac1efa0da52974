"""Counterfactuals, followed again from the facts that the prompt states and what it imagines."""

import re
from collections import Counter

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.counterfactual import N_CHANGES, N_LINKS, N_ROWS

FACTS = re.compile(r"\w+ plays for .*\.")
TOLD = re.compile(r"(?:the )?(\w+)(?: plays for| trains in the| serves| for| in the)? (\w+)$", re.IGNORECASE)
IMAGINED = re.compile(r"(\w+) (?:played for|trained in the|served) (\w+)")
ASKED = re.compile(r"would (\w+) (?:train|be served)\?")


def facts_of(prompt: str) -> list[dict[str, str]]:
    """Return for each sentence of facts what leads to what."""
    sentences = FACTS.search(prompt).group().split(".")[: 3 if "serve" in prompt else 2]
    return [
        {found.group(1).lower(): found.group(2).lower() for found in map(TOLD.search, re.split(", | and ", sentence))}
        for sentence in sentences
    ]


def follow(prompt: str, changes: list[tuple[str, str]]) -> str:
    links = facts_of(prompt)
    for first, second in changes:
        (link,) = [link for link in links if first.lower() in link]
        assert second in link.values()
        assert link[first.lower()] != second
        link[first.lower()] = second
    at = ASKED.search(prompt).group(1).lower()
    for link in links:
        at = link[at]
    return at


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_answer_follows_from_facts_and_changes(difficulty):
    for index in range(300):
        problem = problem_at("counterfactual", index, difficulty=difficulty)
        changes = IMAGINED.findall(problem.prompt)
        assert follow(problem.prompt, changes) == problem.answer, problem
        assert len(changes) == N_CHANGES[difficulty]
        assert [len(link) for link in facts_of(problem.prompt)] == [N_ROWS[difficulty]] * N_LINKS[difficulty]
        assert set(problem.choices) == set(facts_of(problem.prompt)[-1].values())


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_change_matters_often_but_not_always(difficulty):
    problems = [problem_at("counterfactual", index, difficulty=difficulty) for index in range(1000)]
    changed = sum(follow(problem.prompt, []) != problem.answer for problem in problems)
    assert 550 < changed < 900


@pytest.mark.parametrize("difficulty", [1, 3, 5])
def test_the_place_of_a_choice_tells_little(difficulty):
    places: Counter = Counter()
    for index in range(2000):
        problem = problem_at("counterfactual", index, difficulty=difficulty)
        told = list(facts_of(problem.prompt)[-1].values())
        places[told.index(problem.answer)] += 1
    assert max(places.values()) / 2000 <= 1 / N_ROWS[difficulty] + 0.05


def test_steps_say_what_is_told_and_what_imagined():
    problem = problem_at("counterfactual", 0, difficulty=3)
    steps = problem.explanation.split("; ")
    assert len(steps) == N_LINKS[3] + 1
    assert all(step.startswith(("as told: ", "imagined: ")) for step in steps[:-1])


def test_content_is_the_facts_whatever_is_imagined():
    problem = problem_at("counterfactual", 0, difficulty=4)
    rows = []
    first, second, third = facts_of(problem.prompt)
    for person, team in first.items():
        rows.append(f"{person.capitalize()} {team} {second[team]} {third[second[team]]}")
    assert problem.content == "; ".join(sorted(rows))

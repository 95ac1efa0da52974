"""Passages, read again sentence by sentence."""

import re
from collections import Counter

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.passage import DAYS, N_VISITS, PARTS

TOLD = (
    r"On (?P<day>\w+) (?P<name>\w+) took a (?P<thing>\w+) to the (?P<place>\w+)\.",
    r"(?P<name>\w+) reached the (?P<place>\w+) on (?P<day>\w+), bringing a (?P<thing>\w+)\.",
    r"A (?P<thing>\w+) came to the (?P<place>\w+) on (?P<day>\w+) with (?P<name>\w+)\.",
    r"(?P<name>\w+) was at the (?P<place>\w+) on (?P<day>\w+) with a (?P<thing>\w+)\.",
)
ASKED = {"On which day": "day", "Who made": "name", "To which place": "place", "What was brought": "thing"}
STEPS = {"next visit after": 1, "second visit after": 2, "last visit before": -1, "second visit before": -2}


def read(prompt: str) -> list[dict[str, str]]:
    """Return the visits in the order in which they are told."""
    found = [match for pattern in TOLD for match in re.finditer(pattern, prompt)]
    return [match.groupdict() for match in sorted(found, key=lambda match: match.start())]


def answer(prompt: str) -> str:
    visits = sorted(read(prompt), key=lambda visit: DAYS.index(visit["day"]))
    question = re.search(r"[^.\n:]*\?", prompt).group().strip()
    (asked,) = [part for words, part in ASKED.items() if question.startswith(words)]
    if "of the week" in question:
        return visits[0 if "first" in question else -1][asked]
    known = re.findall(r"visit (?:of|by|to the|with the) (\w+)", question)[-1]
    (at,) = [i for i, visit in enumerate(visits) if known in visit.values()]
    step = sum(step for words, step in STEPS.items() if words in question)
    assert step or visits[at][asked] != known
    assert 0 <= at + step < len(visits)
    return visits[at + step][asked]


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_passage_gives_the_answer(difficulty):
    for index in range(300):
        problem = problem_at("passage", index, difficulty=difficulty)
        assert answer(problem.prompt) == problem.answer, problem
        visits = read(problem.prompt)
        assert len(visits) == N_VISITS[difficulty]
        assert all(len({visit[part] for visit in visits}) == len(visits) for part in PARTS)
        assert len(problem.choices) == len(visits)


@pytest.mark.parametrize("difficulty", [1, 3, 5])
def test_the_place_of_a_sentence_tells_nothing(difficulty):
    places: Counter = Counter()
    for index in range(2000):
        problem = problem_at("passage", index, difficulty=difficulty)
        places[[problem.answer in visit.values() for visit in read(problem.prompt)].index(True)] += 1
    assert max(places.values()) / 2000 <= 1 / N_VISITS[difficulty] + 0.05


def test_hard_questions_step_from_one_visit_to_another():
    def words(difficulty: int) -> set[str]:
        prompts = [problem_at("passage", index, difficulty=difficulty).prompt for index in range(200)]
        return {words for words in STEPS for prompt in prompts if words in prompt}

    assert [len(words(difficulty)) for difficulty in (1, 2, 3, 4, 5)] == [0, 0, 0, 2, 4]


def test_content_is_the_visits_whatever_is_asked():
    problem = problem_at("passage", 0, difficulty=3)
    visits = sorted(read(problem.prompt), key=lambda visit: DAYS.index(visit["day"]))
    assert problem.content == "; ".join(" ".join(visit[part] for part in PARTS) for visit in visits)

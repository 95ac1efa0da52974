"""Grids, solved again by trying every assignment against the clues that the prompt states."""

import re
from collections import Counter
from itertools import permutations

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.logic_grid import N_PEOPLE
from everlearn.streams.arena.vocabulary import COLOURS, NAMES, THINGS

CLUE = re.compile(
    r"(The owner of the \w+|\w+) (owns|wears|does not own|does not wear) ((?:the )?\w+(?: or (?:the )?\w+)?)\."
)


def words_of(prompt: str, vocabulary: tuple[str, ...]) -> list[str]:
    """Return the words of a vocabulary in the order of their first mention."""
    return list(dict.fromkeys(word for word in re.findall(r"\w+", prompt) if word in vocabulary))


def solutions(prompt: str) -> list[tuple[dict[str, str], dict[str, str]]]:
    people, things = words_of(prompt, NAMES), words_of(prompt, THINGS)
    colours = words_of(prompt, COLOURS) or ["none"] * len(people)
    clues = CLUE.findall(prompt)
    found = []
    for own in permutations(things):
        owned = dict(zip(people, own, strict=True))
        for wear in permutations(colours) if "none" not in colours else [colours]:
            worn = dict(zip(people, wear, strict=True))
            if all(holds(*clue, owned, worn) for clue in clues):
                found.append((owned, worn))
    return found


def holds(subject: str, verb: str, values: str, owned: dict[str, str], worn: dict[str, str]) -> bool:
    if subject.startswith("The owner"):
        (subject,) = [person for person, thing in owned.items() if thing == subject.split()[-1]]
    value = (owned if "own" in verb else worn)[subject]
    return (value in values.replace("the ", "").split(" or ")) != ("not" in verb)


def asked(prompt: str) -> tuple[str, str]:
    return re.search(r"(What|Which colour) does (\w+) ", prompt).groups()


@pytest.mark.parametrize(("difficulty", "n"), [(1, 60), (2, 60), (3, 60), (4, 60), (5, 15)])
def test_each_step_of_the_explanation_follows_from_the_clues_told_so_far(difficulty, n):
    """What a step adds to its clue holds in every world that the clues up to it leave."""
    for index in range(n):
        problem = problem_at("logic", index, difficulty=difficulty)
        head = re.sub(CLUE, "", problem.prompt).replace("\nAnswer:", "")
        people, things = words_of(problem.prompt, NAMES), words_of(problem.prompt, THINGS)
        colours = words_of(problem.prompt, COLOURS)
        told: list[str] = []
        for step in problem.explanation.split("; "):
            if step.startswith("left: "):
                continue
            clue, _, follows = step.partition(", so ")
            if f"{clue}." in problem.prompt:
                told.append(f"{clue}.")
            prompt = " ".join([*people, *things, *colours, *told])
            left = solutions(prompt)
            for fact in [follows] if follows else [clue]:
                if fact and f"{fact}." not in told:
                    subject, verb, values = CLUE.fullmatch(f"{fact}.").groups()
                    assert all(holds(subject, verb, values, owned, worn) for owned, worn in left), (problem, step)
        what, person = asked(head)
        verb = "wears" if what == "Which colour" else "owns the"
        assert problem.explanation.endswith(f"{person} {verb} {problem.answer}"), problem


@pytest.mark.parametrize(("difficulty", "n"), [(1, 100), (2, 100), (3, 100), (4, 100), (5, 25)])
def test_there_is_one_solution_and_it_holds_the_answer(difficulty, n):
    for index in range(n):
        problem = problem_at("logic", index, difficulty=difficulty)
        found = solutions(problem.prompt)
        assert len(found) == 1, problem
        what, person = asked(problem.prompt)
        assert found[0][what == "Which colour"][person] == problem.answer, problem
        assert len(found[0][0]) == N_PEOPLE[difficulty]
        assert f"{person} owns the {problem.answer}." not in problem.prompt
        assert problem.answer in problem.choices


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_place_of_a_choice_tells_nothing(difficulty):
    problems = [problem_at("logic", index, difficulty=difficulty) for index in range(2000)]
    listed, last = Counter(), 0
    for problem in problems:
        heading = re.sub(r"\b(?!Each )\w+ (owns|wears|does not)[^.]*\.", "", problem.prompt)  # without the clues
        order = [word for word in dict.fromkeys(re.findall(r"\w+", heading)) if word in problem.choices]
        listed[order.index(problem.answer)] += 1
        last += max(problem.choices, key=lambda word, text=problem.prompt: text.rindex(f" {word}")) == problem.answer
    chance = 1 / N_PEOPLE[difficulty]
    assert max(listed.values()) / len(problems) <= chance + 0.05
    assert last / len(problems) <= chance + 0.15  # the end of the prompt alone must not solve it


def test_puzzles_of_one_difficulty_are_not_all_built_alike():
    texts = [problem_at("logic", index, difficulty=4).prompt for index in range(60)]
    assert len({(text.count(" not "), text.count(" or ")) for text in texts}) >= 4


def test_content_is_the_solution_whatever_the_clues():
    problem = problem_at("logic", 0, difficulty=2)
    owned, _ = solutions(problem.prompt)[0]
    assert problem.content == "; ".join(f"{person}: {thing}" for person, thing in sorted(owned.items()))

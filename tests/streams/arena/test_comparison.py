"""Comparison problems, solved again by sorting the facts that the prompt states."""

import re
from collections import Counter
from graphlib import TopologicalSorter
from itertools import pairwise

import pytest

from everlearn.streams.arena import generate_batch, problem_at
from everlearn.streams.arena.comparison import PEOPLE

FACT = re.compile(r"(\w+) (outranks|ranks below|is (\w+) than) (\w+)\.")
UP = {"older", "taller", "faster", "stronger", "richer"}
TOP = ("highest in rank", "oldest", "tallest", "fastest", "strongest", "richest")
BOTTOM = ("lowest in rank", "youngest", "shortest", "slowest", "weakest", "poorest")
ORDINALS = {"second": 1, "third": 2, "fourth": 3}


def solve(prompt: str) -> str:
    below: dict[str, set[str]] = {}
    for first, relation, adjective, second in FACT.findall(prompt):
        over, under = (first, second) if relation == "outranks" or adjective in UP else (second, first)
        below.setdefault(under, set()).add(over)
        below.setdefault(over, set())
    order = list(TopologicalSorter(below).static_order())
    assert all(above in below[under] for above, under in pairwise(order)), "order is not unique"
    ordinal, superlative = re.search(rf"the (?:(\w+) )?({'|'.join(TOP + BOTTOM)})\b", prompt).groups()
    place = ORDINALS.get(ordinal, 0)
    return order[place] if superlative in TOP else order[-1 - place]


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_answer_follows_from_the_facts(difficulty):
    for index in range(300):
        problem = problem_at("comparison", index, difficulty=difficulty)
        assert solve(problem.prompt) == problem.answer, problem
        assert len(problem.choices) == PEOPLE[difficulty]
        assert problem.answer in problem.choices


@pytest.mark.parametrize("difficulty", [1, 3, 5])
def test_the_place_of_a_name_in_the_facts_tells_nothing(difficulty):
    problems = [problem_at("comparison", index, difficulty=difficulty) for index in range(3000)]
    places: Counter = Counter()
    for problem in problems:
        facts = " ".join(fact.group() for fact in FACT.finditer(problem.prompt))
        mentioned = sorted(problem.choices, key=facts.index)
        places[mentioned.index(problem.answer)] += 1
    assert max(places.values()) / len(problems) <= 1 / PEOPLE[difficulty] + 0.05


def test_facts_come_in_any_order():
    starts = Counter()
    for index in range(1000):
        problem = problem_at("comparison", index, difficulty=4)
        first = {name for name in FACT.search(problem.prompt).groups() if name in problem.choices}
        starts[min(problem.content.split(" > ").index(name) for name in first)] += 1
    assert all(abs(starts[place] / 1000 - 1 / 5) < 0.05 for place in range(5))


def test_facts_point_both_ways_only_where_it_is_hard():
    def n_directions(difficulty: int) -> int:
        prompt_facts = [
            {adjective in UP or relation == "outranks" for _, relation, adjective, _ in FACT.findall(problem.prompt)}
            for problem in generate_batch(50, types=["comparison"], difficulty=difficulty)
        ]
        return max(len(directions) for directions in prompt_facts)

    assert n_directions(2) == 1
    assert n_directions(3) == 2


def test_content_is_the_chain_whatever_is_asked():
    problem = problem_at("comparison", 0, difficulty=4)
    assert sorted(problem.content.split(" > ")) == list(problem.choices)


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_explanation_gives_the_pairs_as_they_are_told_then_the_chain_and_the_place(difficulty):
    for index in range(60):
        problem = problem_at("comparison", index, difficulty=difficulty)
        *pairs, chain, place = problem.explanation.split("; ")
        told = [
            f"{a} > {b}" if adjective in UP or relation == "outranks" else f"{b} > {a}"
            for a, relation, adjective, b in FACT.findall(problem.prompt)
        ]
        assert pairs == told, problem
        assert chain == f"so {problem.content}"
        people = problem.content.split(" > ")
        where = {"the first": 0, "the last": -1}.get(place.split(" is ")[1])
        where = int(place.rpartition(" ")[2]) - 1 if where is None else where
        assert people[where] == problem.answer
        assert place.split(" is ")[0].removeprefix("the ") in problem.prompt

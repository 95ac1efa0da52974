"""Causal problems, decided again by truth table from the rules that the prompt states."""

import re
from collections import Counter
from itertools import product

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.causal import CHAIN, DISTRACTORS

STATE = r"the (\w+) is (not )?(\w+)"
RULE = re.compile(rf"(?:If|Whenever|When) {STATE}, (?:then )?{STATE}\.")
OBSERVATION = re.compile(rf"(?:Observation: |Observed: |Seen: |We see that |Today ){STATE}")
CLAIM = re.compile(rf"(?:Claim: |claim that |follow that ){STATE}")

Literal = tuple[str, bool]


def literal(thing: str, negation: str, state: str) -> Literal:
    return f"{thing} {state}", not negation


def read(prompt: str) -> tuple[list[tuple[Literal, Literal]], Literal, Literal]:
    rules = [(literal(*found[:3]), literal(*found[3:])) for found in RULE.findall(prompt)]
    return rules, literal(*OBSERVATION.search(prompt).groups()), literal(*CLAIM.search(prompt).groups())


def decide(prompt: str) -> str:
    rules, seen, claim = read(prompt)
    states = sorted({state for rule in rules for state, _ in rule})
    verdicts = set()
    for values in product((True, False), repeat=len(states)):
        world = dict(zip(states, values, strict=True))
        follows_rules = all(world[a] != a_holds or world[b] == b_holds for (a, a_holds), (b, b_holds) in rules)
        if follows_rules and world[seen[0]] == seen[1]:
            verdicts.add(world[claim[0]] == claim[1])
    assert verdicts, "rules and observation contradict each other"
    return "unknown" if len(verdicts) == 2 else "yes" if verdicts == {True} else "no"


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_truth_table_gives_the_answer(difficulty):
    for index in range(120):
        problem = problem_at("causal", index, difficulty=difficulty)
        assert decide(problem.prompt) == problem.answer, problem
        rules, _, _ = read(problem.prompt)
        assert len(rules) == CHAIN[difficulty] + DISTRACTORS[difficulty]
        assert len({state for rule in rules for state, _ in rule}) == len(rules) + 1  # each rule brings one new state


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_explanation_goes_from_the_observation_to_the_claim(difficulty):
    for index in range(120):
        problem = problem_at("causal", index, difficulty=difficulty)
        rules, seen, claim = read(problem.prompt)
        steps = problem.explanation.split("; ")
        states = [[literal(*found) for found in re.findall(STATE, step)] for step in steps]
        n = CHAIN[difficulty]
        assert all(tuple(pair) in rules for pair in states[:n])
        assert states[n] == [seen]
        known = {seen}
        for step, found in zip(steps[n + 1 :], states[n + 1 :], strict=True):
            for state, sign in found:  # each follows by one rule from what is known
                forward = any(a in known and b == (state, sign) for a, b in rules)
                backward = any((b[0], not b[1]) in known and (a[0], not a[1]) == (state, sign) for a, b in rules)
                assert forward or backward, (problem, step)
                known.add((state, sign))
        if problem.answer == "unknown":
            assert steps[-1].endswith("so nothing follows")
        else:
            assert steps[-1] == f"the claim says the {'same' if problem.answer == 'yes' else 'opposite'}"
            assert (claim in known) == (problem.answer == "yes")


def test_answers_are_balanced_and_signs_tell_nothing():
    by_signs: dict[tuple[bool, bool], Counter] = {}
    for index in range(4000):
        problem = problem_at("causal", index, difficulty=1 + index % 5)
        _, (_, seen_holds), (_, claim_holds) = read(problem.prompt)
        by_signs.setdefault((seen_holds, claim_holds), Counter())[problem.answer] += 1
    total = sum(by_signs.values(), Counter())
    assert all(abs(count / 4000 - 1 / 3) < 0.03 for count in total.values())
    seen_only = sum((counts for (seen, _), counts in by_signs.items() if seen), Counter())
    claim_only = sum((counts for (_, claim), counts in by_signs.items() if claim), Counter())
    for counts in (seen_only, claim_only):
        assert all(abs(count / counts.total() - 1 / 3) < 0.05 for count in counts.values())


def test_hard_problems_negate_states_inside_rules():
    def negated(difficulty: int) -> int:
        rules = [read(problem_at("causal", index, difficulty=difficulty).prompt)[0] for index in range(40)]
        return sum(not holds for rule in rules for pair in rule for _, holds in pair)

    assert negated(3) == 0
    assert negated(4) > 0


def test_content_is_the_set_of_rules():
    problem = problem_at("causal", 3, difficulty=5)
    for (a, a_holds), (b, b_holds) in read(problem.prompt)[0]:
        premise = f"the {a.replace(' ', ' is ' if a_holds else ' is not ')}"
        result = f"the {b.replace(' ', ' is ' if b_holds else ' is not ')}"
        assert f"{premise} > {result}" in problem.content

"""Cause and effect: rules, an observation, and a claim that follows, is ruled out, or stays open.

Item 0 of seed 0, difficulty 1, split "train":

    Rule: Whenever the bell is loud, the soup is hot.
    Observation: the soup is not hot.
    Claim: the bell is not loud.
    Reply yes, no or unknown.
    Answer:

Its answer: yes
"""

import random
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem

TEMPLATES = (
    "Rule: {rules}\nObservation: {observation}.\nClaim: {claim}.\nReply yes, no or unknown.",
    "Rules that always hold: {rules}\nWe see that {observation}.\nClaim: {claim}. Reply yes, no or unknown.",
    "Claim: {claim}.\nRule: {rules}\nObserved: {observation}.\nIs the claim sure? Reply yes, no or unknown.",
    "{rules}\nToday {observation}. Does it follow that {claim}? Reply yes, no or unknown.",
    "Given: {rules} Seen: {observation}.\nCheck the claim that {claim}. Reply yes, no or unknown.",
)
RULES = ("If {a}, then {b}.", "Whenever {a}, {b}.", "When {a}, {b}.")
STATES = {  # a problem uses one state of a thing, so that no two states of it can clash
    "lamp": ("on", "hot", "new"),
    "door": ("open", "locked", "blue"),
    "gate": ("shut", "old", "wet"),
    "dog": ("awake", "hungry", "loud"),
    "cat": ("asleep", "thirsty", "fed"),
    "soup": ("hot", "salty", "ready"),
    "road": ("wet", "closed", "busy"),
    "shop": ("full", "open", "bright"),
    "river": ("high", "cold", "deep"),
    "bus": ("late", "full", "red"),
    "train": ("early", "long", "loud"),
    "window": ("open", "clean", "big"),
    "bread": ("fresh", "warm", "sold"),
    "sky": ("dark", "red", "clear"),
    "street": ("quiet", "dry", "long"),
    "box": ("heavy", "empty", "shut"),
    "phone": ("off", "new", "lost"),
    "field": ("green", "dry", "flat"),
    "fan": ("on", "loud", "clean"),
    "bell": ("old", "heavy", "loud"),
}
THINGS = tuple(STATES.items())
CHAIN = {1: 1, 2: 2, 3: 2, 4: 3, 5: 4}  # rules between the two ends
DISTRACTORS = {1: 0, 2: 0, 3: 1, 4: 1, 5: 2}
NEGATED_FROM = 4  # from this difficulty on, half of the states inside rules are negated
ANSWERS = ("yes", "no", "unknown")
# Which end is observed, and whether it is observed as the rules have it. What that says about the other end:
FORMS = {
    (0, True): True,  # modus ponens
    (-1, False): False,  # modus tollens
    (-1, True): None,  # affirming the consequent would be a fallacy
    (0, False): None,  # and so would denying the antecedent
}
FITTING = {
    answer: [form for form, claim in FORMS.items() if (claim is None) == (answer == "unknown")] for answer in ANSWERS
}

Literal = tuple[str, str, bool]  # thing, state, holds


@register("problem", "causal")
class Causal(NamedTuple):
    """Rules, of which the first `n_chain` lead from one end to the other; one end is observed and the other claimed.

    Difficulty adds rules to the chain (1 to 4), rules beside it (0 to 2), and from 4 on negated states. The three
    answers are equally frequent, and neither the sign of the observation nor that of the claim tells which one it is.

    The same item: the same rules, whatever their order, the observation, the claim and the wording.
    """

    difficulty: int
    rules: tuple[tuple[Literal, Literal], ...]
    n_chain: int
    answer: str
    observed: int  # 0: the first premise, -1: the last conclusion
    observed_holds: bool  # as the rules have it, or its negation

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw the answer first, then a form of inference that gives it."""
        n_chain, n_beside = CHAIN[difficulty], DISTRACTORS[difficulty]
        literals = [
            (thing, rng.choice(states), difficulty < NEGATED_FROM or rng.random() < 0.5)
            for thing, states in rng.sample(THINGS, n_chain + 1 + n_beside)
        ]
        chain, beside = literals[: n_chain + 1], literals[n_chain + 1 :]
        rules = list(pairwise(chain))
        for literal in beside:  # a state that occurs once can't carry an inference from one end to the other
            on_chain = rng.choice(chain)
            rules.append((on_chain, literal) if rng.random() < 0.5 else (literal, on_chain))
        answer = rng.choice(ANSWERS)
        observed, holds = rng.choice(FITTING[answer])
        return cls(difficulty, tuple(rules), n_chain, answer, observed, holds)

    def content(self) -> str:
        """Return the rules in alphabetical order."""
        return "; ".join(sorted([f"{_words(premise)} > {_words(result)}" for premise, result in self.rules]))

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Put the rules into words, in any order, with an observation and a claim of either sign."""
        ends = self.rules[0][0], self.rules[self.n_chain - 1][1]
        other_holds = FORMS[self.observed, self.observed_holds]
        claim_holds = rng.random() < 0.5 if other_holds is None else other_holds == (self.answer == "yes")
        wording = rng.choice(RULES)
        rules = [wording.format(a=_words(premise), b=_words(result)) for premise, result in self.rules]
        rng.shuffle(rules)
        body = rng.choice(TEMPLATES).format(
            rules=" ".join(rules),
            observation=_words(ends[self.observed], self.observed_holds),
            claim=_words(ends[-1 - self.observed], claim_holds),
        )
        return Problem(
            type="causal",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=self.answer,
            choices=ANSWERS,
            explanation="; ".join(self._steps(claim_holds)),
            content=content,
        )

    def _steps(self, claim_holds: bool) -> Iterator[str]:
        """Yield the rules of the chain, what is observed, what follows from it end to end, and what that makes of the
        claim."""
        chain = [self.rules[0][0], *(result for _, result in self.rules[: self.n_chain])]
        for premise, result in pairwise(chain):
            yield f"if {_words(premise)}, {_words(result)}"
        yield _words(chain[self.observed], self.observed_holds)
        part = f"the {'if' if self.observed == 0 else 'then'} part {'holds' if self.observed_holds else 'fails'}"
        follows = FORMS[self.observed, self.observed_holds]
        if follows is None:
            yield f"{part}, so nothing follows"
            return
        first, *others = chain[1:] if follows else chain[-2::-1]
        yield f"{part}, so {_words(first, follows)}"
        for literal in others:
            yield f"so {_words(literal, follows)}"
        yield f"the claim says {'the same' if claim_holds == follows else 'the opposite'}"


@cache
def _words(literal: Literal, holds: bool = True) -> str:
    thing, state, sign = literal
    return f"the {thing} is {state}" if sign == holds else f"the {thing} is not {state}"

"""Pattern recognition: a row of numbers, and the number that comes next.

Item 0 of seed 0, difficulty 1, split "train":

    The row 16, 24, 32, 40 goes on by one rule. Write its next number.
    Answer:

Its answer: 48
"""

import random
from collections.abc import Callable
from typing import NamedTuple, Self

from everlearn.registry import register
from everlearn.streams.arena.problem import CUE, Problem

TEMPLATES = (
    "Continue the pattern: {terms}, ?",
    "Pattern: {terms}, ?\nWhich number stands at the question mark?",
    "The row {terms} goes on by one rule. Write its next number.",
    "Find the rule of {terms} and continue by one number.",
    "What follows {last} in the pattern {terms}?",
)


def arithmetic(rng: random.Random, size: int) -> tuple[list[int], str]:
    """Four terms that grow or fall by one step, up to 5 * `size`, and the fifth."""
    start, step = rng.randint(1, 25 * size), rng.randint(1, 5 * size)
    terms = [start + step * i for i in range(5)]
    if rng.random() < 0.5:
        terms = terms[::-1]
        return terms, f"{terms[0]} - {terms[1]} = {step}; each is {step} less; {terms[3]} - {step} = {terms[4]}"
    return terms, f"{terms[1]} - {terms[0]} = {step}; each is {step} more; {terms[3]} + {step} = {terms[4]}"


def geometric(rng: random.Random, size: int) -> tuple[list[int], str]:
    """Four terms by one factor (2 or 3, or divided by it), and the fifth."""
    factor = rng.choice((2, 2, 3))
    start = rng.randint(1, 6 * size if factor == 2 else 3 * size)
    terms = [start * factor**i for i in range(5)]
    if rng.random() < 0.5:
        terms = terms[::-1]
        found = f"{terms[0]} / {terms[1]} = {factor}"
        return terms, f"{found}; each is divided by {factor}; {terms[3]} / {factor} = {terms[4]}"
    found = f"{terms[1]} / {terms[0]} = {factor}"
    return terms, f"{found}; each is {factor} times the one before; {terms[3]} * {factor} = {terms[4]}"


def fibonacci(rng: random.Random, size: int) -> tuple[list[int], str]:
    """Five terms, each the sum of the two before it, and the sixth."""
    terms = [rng.randint(1, 4 * size), rng.randint(1, 4 * size)]
    while len(terms) < 6:
        terms.append(terms[-2] + terms[-1])
    return terms, f"each is the sum of the two before; {terms[3]} + {terms[4]} = {terms[5]}"


def alternating(rng: random.Random, size: int) -> tuple[list[int], str]:
    """Five terms by two steps in turn, one of which may go down, and the sixth."""
    first, second = rng.sample(range(1, 4 * size), 2)
    second *= rng.choice((1, -1))
    steps = (first, second) if rng.random() < 0.5 else (second, first)
    terms = [0]
    while len(terms) < 6:
        terms.append(terms[-1] + steps[(len(terms) - 1) % 2])
    shift = rng.randint(1, 10 * size) - min(terms)
    terms, last = [term + shift for term in terms], steps[0]
    calculation = f"{terms[4]} {'+' if last > 0 else '-'} {abs(last)} = {terms[5]}"
    return terms, f"steps of {steps[0]} and {steps[1]} in turn; {calculation}"


def growing(rng: random.Random, size: int) -> tuple[list[int], str]:
    """Five terms whose step itself grows by a fixed amount, and the sixth."""
    term, step, growth = rng.randint(1, 8 * size), rng.randint(1, 3 * size), rng.randint(1, 2 * size)
    terms = [term + step * i + growth * i * (i - 1) // 2 for i in range(6)]
    last = step + 4 * growth
    calculation = f"{last - growth} + {growth} = {last}; {terms[4]} + {last} = {terms[5]}"
    return terms, f"the step starts at {step} and grows by {growth}; {calculation}"


def affine(rng: random.Random, size: int) -> tuple[list[int], str]:
    """Four terms, each the one before times 2 or 3 and then a constant more, and the fifth."""
    factor, constant = rng.choice((2, 2, 3)), rng.randint(1, 3 * size)
    terms = [rng.randint(1, 4 * size)]
    while len(terms) < 5:
        terms.append(terms[-1] * factor + constant)
    calculation = f"{factor} * {terms[3]} + {constant} = {terms[4]}"
    return terms, f"each is {factor} times the one before plus {constant}; {calculation}"


def interleaved(rng: random.Random, size: int) -> tuple[list[int], str]:
    """Seven terms of two rows in turn, each with its own step, and the eighth."""
    starts = rng.randint(1, 10 * size), rng.randint(1, 10 * size)
    steps = rng.sample(range(1, 4 * size), 2)
    terms = [starts[i % 2] + steps[i % 2] * (i // 2) for i in range(8)]
    calculation = f"{terms[5]} + {steps[1]} = {terms[7]}"
    return terms, f"two rows in turn, with steps {steps[0]} and {steps[1]}; {calculation}"


Family = Callable[[random.Random, int], tuple[list[int], str]]
FAMILIES: dict[int, tuple[Family, ...]] = {
    1: (arithmetic,),
    2: (arithmetic, arithmetic, geometric),
    3: (alternating, alternating, fibonacci, geometric),
    4: (alternating, fibonacci, growing, affine),
    5: (interleaved, fibonacci, growing, affine),
}
SIZES = {1: 2, 2: 4, 3: 3, 4: 4, 5: 6}


@register("problem", "sequence")
class NumberSequence(NamedTuple):
    """The terms, the last of which is the answer, and the rule in words with the calculation of the last term.

    Difficulty chooses the families of rules (one step; a factor; sums of two; steps in turn; growing steps; factor and
    constant; two rows in turn) and the size of the numbers. Enough terms are shown that no other of these families
    continues them otherwise.

    The same item: the same terms, whatever the wording.
    """

    difficulty: int
    terms: tuple[int, ...]
    rule: str

    @classmethod
    def draw(cls, rng: random.Random, difficulty: int) -> Self:
        """Draw a family and its terms."""
        terms, rule = rng.choice(FAMILIES[difficulty])(rng, SIZES[difficulty])
        return cls(difficulty, tuple(terms), rule)

    def content(self) -> str:
        """Return the terms with the answer."""
        return " ".join(map(str, self.terms))

    def problem(self, rng: random.Random, content: str) -> Problem:
        """Show all terms but the last."""
        shown = self.terms[:-1]
        body = rng.choice(TEMPLATES).format(terms=", ".join(map(str, shown)), last=shown[-1])
        return Problem(
            type="sequence",
            difficulty=self.difficulty,
            prompt=body + CUE,
            answer=str(self.terms[-1]),
            choices=(),
            explanation=self.rule,
            content=content,
        )

"""Bills, worked out again from the sentences of the prompt."""

import re
from collections import Counter
from fractions import Fraction

import pytest

from everlearn.streams.arena import problem_at
from everlearn.streams.arena.multistep import PLANS

STEPS = (  # a sentence, and what it does to the total
    (r"\w+ (?:buys|takes) (\d+) \w+(?: at|; each costs) \$(\d+)(?: each)?", lambda total, n, price: n * price),
    (r"A pack of (\d+) \w+ costs \$(\d+). \w+ buys (\d+) \w+ at this rate", lambda total, k, cost, n: n * cost / k),
    (r"\w+ buys (\d+) \w+, of which (\d+) cost \$(\d+)", lambda total, n, k, cost: n * cost / k),
    (r"To that come (\d+) \w+ at \$(\d+) each", lambda total, n, price: total + n * price),
    (r"\w+ adds (\d+) \w+, each for \$(\d+)", lambda total, n, price: total + n * price),
    (r"There is a discount of (\d+)%", lambda total, percent: total - total * percent / 100),
    (r"The shop takes off (\d+)%", lambda total, percent: total - total * percent / 100),
    (r"Then (\d+)% are added for service", lambda total, percent: total + total * percent / 100),
    (r"All of this becomes (\d+)% dearer", lambda total, percent: total + total * percent / 100),
    (r"Sending costs \$(\d+) more", lambda total, cost: total + cost),
    (r"A bag for \$(\d+) is added", lambda total, cost: total + cost),
    (r"(\d+) friends share the bill evenly", lambda total, n: total / n),
    (r"The bill is split evenly among (\d+) friends", lambda total, n: total / n),
    (r"\w+ (?:pays with|hands over) \$(\d+)", lambda total, paid: paid - total),
    (r"\w+ came with \$(\d+)", lambda total, purse: total * 100 / purse),
    (r"In the purse of \w+ were \$(\d+)", lambda total, purse: total * 100 / purse),
)


def work_out(prompt: str) -> tuple[list[Fraction], str]:
    """Return the totals after each sentence, and the question."""
    totals, rest = [Fraction(0)], prompt.removesuffix("\nAnswer:")
    while not re.fullmatch(r"(How|What) [^.]*\?", rest):
        ((found, step),) = [(m, step) for words, step in STEPS if (m := re.match(words + r"\. ", rest))]
        totals.append(step(totals[-1], *map(Fraction, found.groups())))
        rest = rest[found.end() :]
    return totals[1:], rest


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_sentences_give_the_answer(difficulty):
    for index in range(300):
        problem = problem_at("multistep", index, difficulty=difficulty)
        totals, question = work_out(problem.prompt)
        assert len(totals) == {1: 2, 2: 2, 3: 3, 4: 3, 5: 4}[difficulty]
        assert all(total.denominator == 1 and total > 0 for total in totals), problem
        assert problem.answer == f"{totals[-1]}{'%' if 'percentage' in question else ''}", problem


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_every_step_is_right_and_the_last_gives_the_answer(difficulty):
    for index in range(300):
        problem = problem_at("multistep", index, difficulty=difficulty)
        steps = [step.split(" = ") for step in problem.explanation.split("; ")]
        assert all(eval(calculation) == int(result) for calculation, result in steps), problem
        assert steps[-1][1] == problem.answer.removesuffix("%")


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_every_plan_appears(difficulty):
    plans = Counter(problem_at("multistep", i, difficulty=difficulty).content.split(":")[0] for i in range(400))
    assert set(plans) == {", ".join(plan) for plan in PLANS[difficulty]}
    assert min(plans.values()) > 40


def test_content_holds_the_numbers_without_names():
    problem = problem_at("multistep", 0, difficulty=5)
    assert set(re.findall(r"\d+", problem.prompt)) <= set(re.findall(r"\d+", problem.content))
    assert not re.search("[A-Z]", problem.content)

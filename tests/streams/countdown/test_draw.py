"""Drawn problems: solvable as planted, different, apart, counted; and sizes that run dry."""

import numpy as np
import pytest

from everlearn.errors import StreamError
from everlearn.streams.countdown.draw import Problems, draw, draw_problems, hash_of
from everlearn.streams.countdown.groups import GROUPS, Space
from everlearn.streams.countdown.solver import solve
from everlearn.streams.countdown.verify import Verdict, judge


def listed(parts: list[Problems], operators: str = "+-*/") -> list[tuple]:
    """Return (numbers, target, solution, n_solutions, n_without_newest) of all problems."""
    return [
        one
        for part in parts
        for one in zip(
            part.numbers.tolist(), part.targets.tolist(), part.solutions(operators), part.n_solutions.tolist(),
            part.n_without_newest.tolist(), strict=True,
        )
    ]  # fmt: skip


def names(parts: list[Problems]) -> set[tuple]:
    return {(tuple(sorted(numbers)), target) for numbers, target, *_ in listed(parts)}


@pytest.mark.parametrize("group", [*GROUPS, "*", "-/"])
def test_each_problem_is_solved_as_planted(group):
    space = Space(group, sizes=(3, 4), max_number=50)
    problems, notes = draw_problems(space, 150, 50, seed=1)
    assert notes == []
    for split, n in (("train", 150), ("test", 50)):
        found = listed(problems[split], space.operators)
        assert len(found) == len(names(problems[split])) == n
        assert [len(part) for part in problems[split]] == [n // 2, n // 2]
        for numbers, target, solution, n_solutions, _ in found:
            assert judge(f"<answer>{solution}</answer>", numbers, target, space.operators) is Verdict.RIGHT
            assert min(numbers) >= 1
            assert max(numbers) <= 50
            assert 1 <= target <= 100
            assert n_solutions >= 1
    assert not names(problems["train"]) & names(problems["test"])


def test_counts_are_those_of_the_solver():
    problems, _ = draw_problems(Space("3", sizes=(3, 4), max_number=12), 60, 20, seed=2)
    for numbers, target, _, n_solutions, n_without in listed(problems["train"]):
        assert n_solutions == len(solve(numbers, target, "+-*/"))
        assert n_without == len(solve(numbers, target, "+-*"))


@pytest.mark.parametrize("group", ["1", "2", "3", "mmd", "0"])
def test_the_newest_operator_is_needed_where_it_has_to_be(group):
    space = Space(group, sizes=(3,), max_number=20, require_new_operator=True)
    problems, _ = draw_problems(space, 100, 20, seed=0)
    for numbers, target, _, n_solutions, n_without in listed(problems["train"] + problems["test"]):
        assert n_without == 0 < n_solutions
        if space.operators[:-1]:
            assert solve(numbers, target, space.operators[:-1]) == []


@pytest.mark.parametrize("size", [5, 6])
def test_more_numbers(size):
    problems, _ = draw_problems(Space("2" if size == 5 else "1", sizes=(size,)), 20, 5, seed=0)
    for numbers, target, solution, *_ in listed(problems["train"]):
        assert len(numbers) == size
        assert judge(f"<answer>{solution}</answer>", numbers, target) is Verdict.RIGHT


def test_planted_steps_are_whole_and_not_negative():
    drawn = draw(np.random.default_rng(0), 200_000, 4, Space("3", max_number=30))
    assert len(drawn) > 1000
    values = np.concatenate([drawn.numbers, np.zeros((len(drawn), 3), np.int64)], axis=1)
    rows = np.arange(len(drawn))
    for step in range(3):
        sign, left, right = drawn.steps[:, step].T.astype(np.int64)
        a, b = values[rows, left], values[rows, right]
        for operator, result in (("+", a + b), ("-", a - b), ("*", a * b), ("/", a / np.maximum(b, 1))):
            chosen = sign == ord(operator)
            assert (result[chosen] >= 0).all()
            assert (result[chosen] == result[chosen].round()).all()
            values[chosen, 4 + step] = result[chosen]
        assert not ((sign == ord("/")) & (b == 0)).any()
    assert (values[:, -1] == drawn.targets).all()


def test_a_test_problem_is_one_in_every_group_and_for_every_seed():
    tests, trained = set(), set()
    for group, seed in (("0", 0), ("1", 0), ("2", 5)):
        problems, _ = draw_problems(Space(group, sizes=(3,), max_number=15), 200, 100, seed)
        tests |= names(problems["test"])
        trained |= names(problems["train"])
    assert not tests & trained


def test_the_same_seed_draws_the_same():
    space = Space("2", max_number=30)
    one, other, another = (listed(draw_problems(space, 50, 10, seed)[0]["train"]) for seed in (3, 3, 4))
    assert one == other != another


def test_a_size_that_runs_dry_is_made_up_for_by_the_others():
    # three numbers of 1 to 5 have 35 multisets, each with one sum
    space = Space("0", sizes=(3, 4), max_number=5)
    problems, notes = draw_problems(space, 60, 20, seed=0)
    assert sum(map(len, problems["train"])) == 60
    assert sum(map(len, problems["test"])) == 20
    three = len(problems["train"][0]) + len(problems["test"][0])
    assert 25 <= three <= 35
    assert notes == [f"Group 0 ran dry with 3 numbers at {three} different problems; more of 4 numbers make up for it."]


@pytest.mark.parametrize(
    "space",
    [
        Space("0", sizes=(3,), max_number=5),
        Space("0", sizes=(3,), min_number=60),  # no sum is small enough
    ],
)
def test_a_space_with_too_few_problems_is_refused(space):
    with pytest.raises(StreamError, match=r"has too few problems\. Got .* of 1,000 for train.* Ask for fewer"):
        draw_problems(space, 1_000, 100, seed=0)


def test_hashes_name_problems():
    one = hash_of(np.array([[3, 5, 9], [9, 3, 5], [3, 5, 9], [3, 5, 8]]), np.array([17, 17, 16, 17]))
    assert one[0] == one[1]
    assert len(set(one.tolist())) == 3
    rng = np.random.default_rng(0)
    many = hash_of(np.sort(rng.integers(1, 98, (50_000, 4)), axis=1), np.full(50_000, 7))
    share = (many < np.uint64(2**64 // 10)).mean()
    assert share == pytest.approx(0.1, abs=0.01)

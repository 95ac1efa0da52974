"""Draws of arena items beside those of the standard library."""

import random

import pytest

from everlearn.streams.arena.draws import Draws


@pytest.fixture
def both():
    """Ours and Python's, in the same state; that they end in the same state as well is checked."""
    ours, theirs = Draws(1), random.Random(1)
    yield ours, theirs
    assert ours.getstate() == theirs.getstate()


def test_a_sample_is_that_of_random_and_takes_the_same_draws(both):
    ours, theirs = both
    for n in (1, 2, 4, 8, 20, 21, 22, 23, 60, 85, 86, 400):
        for k in {0, 1, 2, 5, 6, 7, 8, 20, 21, 22, n}:
            if k <= n:
                assert ours.sample(range(n), k) == theirs.sample(range(n), k)
    assert ours.sample("ab", 2, counts=[3, 1]) == theirs.sample("ab", 2, counts=[3, 1])


def test_a_shuffle_is_that_of_random_and_takes_the_same_draws(both):
    ours, theirs = both
    for n in range(70):
        first, second = list(range(n)), list(range(n))
        ours.shuffle(first)
        theirs.shuffle(second)
        assert first == second


def test_choices_and_numbers_are_those_of_random_and_take_the_same_draws(both):
    ours, theirs = both
    for n in range(1, 70):
        assert ours.choice(range(n)) == theirs.choice(range(n))
        assert ours.randrange(n) == theirs.randrange(n)
        assert ours.randrange(-n, n) == theirs.randrange(-n, n)
        assert ours.randrange(0, n, 3) == theirs.randrange(0, n, 3)
        assert ours.randint(-n, n) == theirs.randint(-n, n)


def test_what_is_sampled_from_stays():
    letters = ["a", "b", "c"]
    assert sorted(Draws(0).sample(letters, 3)) == letters == ["a", "b", "c"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.choice([]),
        lambda rng: rng.sample([1, 2], 3),
        lambda rng: rng.sample([1, 2], -1),
        lambda rng: rng.randint(3, 2),
        lambda rng: rng.randrange(0),
    ],
)
def test_a_draw_from_nothing_is_an_error_as_it_is_of_random(draw):
    for rng in (Draws(0), random.Random(0)):
        with pytest.raises((IndexError, ValueError)):
            draw(rng)

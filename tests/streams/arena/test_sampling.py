"""Samples and shuffles beside those of the standard library."""

import random

from everlearn.streams.arena.sampling import sample, shuffle


def test_a_sample_is_that_of_random_and_takes_the_same_draws():
    ours, theirs = random.Random(1), random.Random(1)
    for n in (1, 2, 4, 8, 20, 21, 22, 23, 60, 85, 86, 400):
        for k in {0, 1, 2, 5, 6, 7, 8, 20, 21, 22, n}:
            if k <= n:
                assert sample(ours, range(n), k) == theirs.sample(range(n), k)
    assert ours.getstate() == theirs.getstate()


def test_a_shuffle_is_that_of_random_and_takes_the_same_draws():
    ours, theirs = random.Random(2), random.Random(2)
    for n in range(70):
        first, second = list(range(n)), list(range(n))
        shuffle(ours, first)
        theirs.shuffle(second)
        assert first == second
    assert ours.getstate() == theirs.getstate()


def test_what_is_sampled_from_stays():
    letters = ["a", "b", "c"]
    assert sorted(sample(random.Random(0), letters, 3)) == letters == ["a", "b", "c"]

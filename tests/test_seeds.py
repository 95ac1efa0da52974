import random
from contextlib import suppress

import numpy
import torch

from everlearn.seeds import generator_for, seed_for, seeded


def draw():
    return random.random(), random.gauss(), numpy.random.rand(), numpy.random.standard_normal(), torch.rand(1).item()


def test_the_global_generators_are_seeded_for_a_block_and_left_as_they_were():
    random.gauss(), numpy.random.standard_normal()  # half of a pair is kept for the next call
    states = random.getstate(), numpy.random.get_state()[1].copy(), torch.get_rng_state()
    with seeded(5):
        first = draw()
    with suppress(ValueError), seeded(5):
        assert draw() == first
        raise ValueError
    assert random.getstate() == states[0]
    assert (numpy.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_seeds_depend_on_every_part_and_never_meet():
    seeds = {
        seed_for(run, task, split, index) for run in range(5) for task in "ab" for split in "te" for index in range(50)
    }
    assert len(seeds) == 5 * 2 * 2 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_for("ab", "c") != seed_for("a", "bc")
    assert seed_for(1, 2) != seed_for(12)


def test_seeds_are_the_same_on_every_machine():
    assert seed_for(0, "task", "train", 3) == 6318447369525263174
    assert torch.equal(torch.rand(2, generator=generator_for(1)), torch.rand(2, generator=generator_for(1)))

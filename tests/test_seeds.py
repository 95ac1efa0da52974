import torch

from everlearn.seeds import generator_for, seed_for


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

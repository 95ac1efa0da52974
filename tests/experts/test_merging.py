"""Merging: what is exact is exact, what is cut is the best of its rank, and peft's traps are refused."""

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.experts import Merge
from everlearn.experts.merging import KINDS, merged
from support.experts import make_lora


def update(lora, name: str) -> torch.Tensor:
    """Return the matrix that a LoRA adds to a layer, zero where it has none."""
    if name not in lora.layers:
        return torch.zeros(())
    weights = lora.layer(name)
    return weights.scaling * weights.up @ weights.down


def test_cat_is_the_weighted_sum_whatever_ranks_scales_and_layers(base):
    loras = [
        make_lora(base, 0, rank=2),
        make_lora(base, 1, rank=3, targets=["q_proj", "up_proj"], use_rslora=True),
    ]
    made = merged(loras, Merge("cat", (0.5, -2.0)), base)
    made.check(base, "merged")
    assert made.rank == 5
    assert made.targets == ["q_proj", "up_proj", "v_proj"]
    for name in made.layers:
        torch.testing.assert_close(update(made, name), 0.5 * update(loras[0], name) - 2 * update(loras[1], name))


def test_equal_weights_sum_to_one(base):
    lora = make_lora(base, 0)
    made = merged([lora, lora], Merge("cat"), base)
    for name in made.layers:
        torch.testing.assert_close(update(made, name), update(lora, name))


def test_svd_is_the_nearest_of_its_rank(base):
    loras = [make_lora(base, seed) for seed in range(2)]
    for rank, is_whole in ((4, True), (2, False)):
        made = merged(loras, Merge("svd", rank=rank), base)
        assert made.rank == rank
        for name in made.layers:
            wanted = (update(loras[0], name) + update(loras[1], name)) / 2
            u, s, v = torch.linalg.svd(wanted)
            nearest = u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]
            torch.testing.assert_close(update(made, name), nearest, atol=1e-4, rtol=1e-4)
            assert torch.allclose(nearest, wanted, atol=1e-4) == is_whole
    assert merged(loras, Merge("svd"), base).rank == 2


def test_a_rank_beyond_a_layers_size_is_filled_up(base):
    loras = [make_lora(base, seed, rank=10) for seed in range(2)]
    made = merged(loras, Merge("svd", rank=20), base)  # v_proj has 16 outputs
    made.check(base, "merged")
    name = "model.layers.0.self_attn.v_proj"
    wanted = (update(loras[0], name) + update(loras[1], name)) / 2
    torch.testing.assert_close(update(made, name), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd"])
def test_thinned_merges_follow_the_seed_and_leave_the_generator(base, kind):
    loras, state = [make_lora(base, seed) for seed in range(2)], torch.get_rng_state()
    first, again, other = (merged(loras, Merge(kind, density=0.5, seed=seed), base) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for made in (first, again, other):
        made.check(base, "merged")
    name = first.layers[0]
    assert torch.equal(update(first, name), update(again, name))
    assert torch.equal(update(first, name), update(other, name)) == (not kind.startswith("dare"))
    assert not torch.allclose(update(first, name), (update(loras[0], name) + update(loras[1], name)) / 2, atol=0.1)


@pytest.mark.parametrize("kind", ["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_kinds_that_act_on_a_and_b_apart_are_refused(kind):
    with pytest.raises(ConfigError, match=f"acts on A and B by themselves.*Use {'svd' if kind == 'linear' else kind}"):
        Merge(kind)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mean"}, f"merge: kind: is unknown.*Allowed: {', '.join(KINDS)}"),
        ({"kind": "ties_svd"}, "merge: density: is out of range. Got None"),
        ({"kind": "ties_svd", "density": 1.5}, "merge: density: is out of range. Got 1.5"),
        ({"kind": "svd", "density": 0.5}, "svd thins nothing"),
        ({"kind": "cat", "rank": 3}, "cat cuts nothing"),
        ({"kind": "svd", "rank": 0}, "merge: rank: is out of range"),
        ({"kind": "svd", "weights": (1.0, float("nan"))}, "merge: weights: is out of range"),
    ],
)
def test_bad_options_are_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        Merge(**options)


def test_too_few_experts_or_weights_are_refused(base):
    lora = make_lora(base, 0)
    with pytest.raises(ConfigError, match=r"needs two experts or more\. Got 1"):
        merged([lora], Merge(), base)
    with pytest.raises(ConfigError, match=r"merge: weights: should be 2\. Got \(1\.0,\)"):
        merged([lora, lora], Merge(weights=(1.0,)), base)

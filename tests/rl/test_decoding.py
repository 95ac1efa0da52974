"""Single tokens: attention by products beside torch's, and a cache that has room."""

from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from everlearn.rl.decoding import ROOM, SDPA, RoomyLayer, attend, attention_by_products, repeat_lines

CPU = torch.device("cpu")
MODULE = SimpleNamespace(num_key_value_groups=2, is_causal=True)


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def make_llama(implementation=SDPA):
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, intermediate_size=24, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.5, attn_implementation=implementation,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("n_queries", [1, 3])
@pytest.mark.parametrize("masked", [True, False])
def test_a_token_reads_what_it_reads_by_torchs_kernel(n_queries, masked):
    query, key, value = random(5, 4, n_queries, 8), random(5, 2, 7, 8), random(5, 2, 7, 8).flip(0)
    mask = None
    if masked:
        mask = torch.rand((5, 1, n_queries, 7), generator=torch.Generator().manual_seed(0)) < 0.6
        mask[..., 0] = True
    found, _ = attend(MODULE, query, key, value, mask, scaling=0.3)
    wanted, _ = sdpa_attention_forward(MODULE, query, key, value, mask, scaling=0.3)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_a_mask_that_is_added_is_left_to_torchs_kernel():
    query, key, value = random(2, 4, 1, 8), random(2, 2, 7, 8), random(2, 2, 7, 8)
    mask = random(2, 1, 1, 7)
    found, _ = attend(MODULE, query, key, value, mask)
    assert torch.equal(found, sdpa_attention_forward(MODULE, query, key, value, mask)[0])


@torch.no_grad()
def test_token_by_token_through_a_growing_cache_as_all_at_once():
    """Two prompts of unequal length with three different answers each, some of which end on the way."""
    network, n_new = make_llama(), 3 * ROOM
    prompts = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    mask = (prompts != 0).long().repeat_interleave(3, 0)
    answers = torch.randint(3, 40, (6, n_new), generator=torch.Generator().manual_seed(0))
    ids, whole = (
        torch.cat([prompts.repeat_interleave(3, 0), answers], 1),
        torch.cat([mask, torch.ones_like(answers)], 1),
    )
    positions = (whole.cumsum(1) - 1).clamp(min=0)
    wanted = network(ids, attention_mask=whole, position_ids=positions).logits
    with attention_by_products(network, CPU):
        cache = DynamicCache(config=network.config)
        network(prompts, attention_mask=mask[::3], position_ids=positions[::3, :4], past_key_values=cache)
        repeat_lines(network, cache, 3)
        assert all(type(layer) is RoomyLayer for layer in cache.layers)
        kept = torch.arange(6)
        for place in range(4, 4 + n_new):
            if place == 20:
                kept = torch.tensor([0, 2, 5])
                cache.batch_select_indices(kept)
            seen = {"attention_mask": whole[kept, : place + 1], "position_ids": positions[kept, place : place + 1]}
            logits = network(ids[kept, place : place + 1], past_key_values=cache, **seen).logits[:, 0]
            torch.testing.assert_close(logits, wanted[kept, place], atol=1e-4, rtol=1e-4)
    assert cache.get_seq_length() == 4 + n_new


@pytest.mark.parametrize("implementation", [SDPA, "eager"])
def test_a_model_has_its_own_attention_back(implementation):
    network = make_llama(implementation)
    with attention_by_products(network, CPU):
        assert (network.config._attn_implementation == implementation) == (implementation == "eager")
    assert network.config._attn_implementation == implementation
    with pytest.raises(ValueError, match="stopped"), attention_by_products(network, CPU):
        raise ValueError("stopped")
    assert network.config._attn_implementation == implementation


def test_on_a_gpu_attention_stays_as_it_is():
    network = make_llama()
    with attention_by_products(network, torch.device("cuda")):
        assert network.config._attn_implementation == SDPA

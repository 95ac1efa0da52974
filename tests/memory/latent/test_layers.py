"""A network that is cut at a block and put together again is the network."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from everlearn.errors import ModelError
from everlearn.learners.loader import row_batches
from everlearn.memory.latent.layers import (
    answers_from,
    blocks_of,
    check_cut,
    hidden_states,
    joined,
    lowest_adapted,
)
from everlearn.memory.latent.reading import latents_of
from everlearn.models.load import AdapterConfig, load_model
from everlearn.models.without import adapter_off
from support.experts import shake
from support.models import HEADS, SIZES, byte_tokenizer
from support.runs import make_bench

FAMILIES = {
    "gemma": lambda sizes: GemmaForCausalLM(GemmaConfig(**sizes)),
    "gemma2, every other layer of which slides a window": lambda sizes: Gemma2ForCausalLM(
        Gemma2Config(**sizes, sliding_window=4)
    ),
    "qwen3": lambda sizes: Qwen3ForCausalLM(Qwen3Config(**sizes)),
}


def first_batch(model, task, n=4):
    _, batch = next(row_batches(model.objective, task.train, task, n))
    return batch


def cut(model, batch, layer):
    """Return what goes into a block, with the adapter as it is."""
    with torch.no_grad(), model.evaluating():
        return latents_of(model, batch, hidden_states(model, batch, layer))


def assert_whole(model, batch, layer):
    latents = cut(model, batch, layer)
    with torch.no_grad(), model.evaluating():
        whole, (outputs, features) = model.objective.forward(model.network, batch), answers_from(model, latents, layer)
    assert torch.equal(outputs.logits, whole.logits)
    assert torch.equal(outputs.owners, whole.owners)
    assert features.shape[-1] == latents.states.shape[-1]
    assert model.kind == "classify" or len(features) == len(whole.logits)
    check_cut(model, batch, latents, layer)


@pytest.fixture(params=["causal_lora", "classify", "tag"])
def learner(request, llama, bert):
    bench = make_bench(request.param, llama, bert)
    model = load_model(bench.config, bench.tasks)
    for task in bench.tasks:
        model.adapters.do("labels", task=task.name, labels=list(task.labels), seed=0)
    shake(model, 0)
    return model, bench.tasks[0]


@pytest.mark.parametrize("layer", [0, 1])
def test_the_blocks_above_answer_to_their_inputs_as_the_network_does_bit_for_bit(learner, layer):
    model, task = learner
    batch = first_batch(model, task)
    assert len(set(latents_of(model, batch, torch.zeros(4, batch["input_ids"].shape[1], 1)).lengths.tolist())) > 1
    assert_whole(model, batch, layer)


@pytest.mark.parametrize("name", FAMILIES)
def test_other_architectures_make_their_own_masks_and_positions(name, tmp_path, llama):
    tokenizer = byte_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FAMILIES[name]({**SIZES, **HEADS, "vocab_size": len(tokenizer), "num_hidden_layers": 3})
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bench = make_bench("causal_lora", tmp_path, llama)
    model = load_model(bench.config, bench.tasks)
    shake(model, 0)
    for layer in (0, 2):
        assert_whole(model, first_batch(model, bench.tasks[0]), layer)


def test_with_the_adapter_off_states_are_the_bases_and_flags_come_back(learner):
    model, task = learner
    batch = first_batch(model, task)
    flags = [p.requires_grad for p in model.network.parameters()]
    with model.evaluating(), adapter_off(model):
        before = hidden_states(model, batch, 1)
    shake(model, 1)
    with model.evaluating(), adapter_off(model):
        assert torch.equal(hidden_states(model, batch, 1), before)
    assert not torch.equal(cut(model, batch, 1).states, before)
    assert [p.requires_grad for p in model.network.parameters()] == flags


def test_gradients_reach_the_blocks_from_the_layer_on_and_nothing_is_left_behind(learner):
    model, task = learner
    blocks = blocks_of(model.network)
    outputs, features = answers_from(model, cut(model, first_batch(model, task), 1), 1)
    (outputs.logits.square().sum() + features.sum()).backward()
    assert all(p.grad is None for p in blocks[0].parameters())
    assert any(p.grad is not None and p.grad.any() for p in blocks[1].parameters())
    assert not any("forward" in vars(block) or block._forward_pre_hooks for block in blocks)


def test_rows_of_several_heads_stand_in_one_batch(llama, bert):
    bench = make_bench("classify", llama, bert)
    model = load_model(bench.config, bench.tasks)
    parts, wanted = [], []
    for task in bench.tasks:
        model.adapters.do("labels", task=task.name, labels=list(task.labels), seed=0)
    for task in bench.tasks:
        batch = first_batch(model, task)
        parts.append(cut(model, batch, 1))
        with torch.no_grad(), model.evaluating():
            wanted.append(model.objective.forward(model.network, batch).logits)
            logits = answers_from(model, joined(parts), 1)[0].logits
    assert logits.shape == (8, 5)
    torch.testing.assert_close(logits[:4, :2], wanted[0])
    torch.testing.assert_close(logits[4:, 2:], wanted[1])
    assert (logits[:4, 2:].softmax(-1).amax(), logits[:4].softmax(-1)[:, 2:].sum()) != (0, 1)
    assert logits[:4].softmax(-1)[:, 2:].sum() == 0


def test_the_lowest_block_with_a_lora_is_found(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    assert lowest_adapted(load_model(bench.config, bench.tasks).network) == 0
    config = replace(bench.config, adapter=AdapterConfig(rank=2, targets=["layers.1.self_attn.q_proj"]))
    assert lowest_adapted(load_model(config, bench.tasks).network) == 1


def test_a_network_that_can_not_be_cut_is_refused(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    model = load_model(bench.config, bench.tasks)
    batch = first_batch(model, bench.tasks[0])
    latents = cut(model, batch, 1)
    base, words = model.network.get_base_model().model, []
    base.embed_tokens.register_forward_hook(lambda module, inputs, out: words.append(out))
    base.norm.register_forward_hook(lambda module, inputs, out: out + words[-1])  # a way around the blocks
    with pytest.raises(ModelError, match=r"LlamaForCausalLM can't be run from its block 1 on"):
        check_cut(model, batch, latents, 1)
    with pytest.raises(ModelError, match="has no list of blocks"):
        blocks_of(LlamaForCausalLM(LlamaConfig(**{**SIZES, **HEADS, "num_hidden_layers": 1})))


def test_a_head_of_many_tasks_is_no_list_of_blocks(llama, bert):
    bench = make_bench("classify", llama, bert)
    model = load_model(bench.config, bench.tasks)
    for number in range(5):
        model.adapters.do("labels", task=f"{number}", labels=[f"a{number}", f"b{number}"], seed=0)
    assert len(blocks_of(model.network)) == 2

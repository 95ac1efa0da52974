"""Answers laid out side by side behind their prompt: the same log-probabilities and gradients as a row each."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from everlearn.models.adapters import Adapters
from everlearn.models.causal import CausalObjective
from everlearn.models.load import POCKET, AdapterConfig, Model, ModelConfig, load_model
from everlearn.models.objectives import item_losses
from everlearn.rl.rollouts import Answered, can_be_packed, cut, distinct, lay_out
from everlearn.types import IGNORED
from support.models import HEADS, N_WORDS, SIZES, byte_tokenizer
from support.policy import ADAPTERS
from support.runs import make_bench
from support.tasks import prompt_task

PACKED = {
    "llama, sdpa": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, attn_implementation="sdpa")),
    "llama, eager": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, attn_implementation="eager")),
    "gpt2, which learns its positions": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=N_WORDS, n_embd=16, n_layer=2, n_head=2)
    ),
}
IN_ROWS = {
    "mamba": lambda: MambaForCausalLM(MambaConfig(**SIZES, state_size=4)),
    "mistral, whose window slides": lambda: MistralForCausalLM(MistralConfig(**SIZES, **HEADS, sliding_window=50)),
    "gemma2, half of whose layers do": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, **HEADS, sliding_window=50)),
}


def answered(*shapes, n_words=N_WORDS):
    """Return prompts and answers of random tokens. shapes: (prompt's length, [answers' lengths], [how often drawn])."""
    generator = torch.Generator().manual_seed(0)

    def tokens(n):
        return torch.randint(3, n_words, (n,), generator=generator).tolist()

    return [
        Answered(None, {}, (0, 0), tokens(n), [tokens(m) for m in lengths], counts) for n, lengths, counts in shapes
    ]


UNEQUAL = (  # prompts and answers of one token and of several, some drawn more than once
    (7, [3, 1, 5], [1, 4, 2]),
    (1, [2, 2], [1, 1]),
    (12, [6], [8]),
    (1, [1], [3]),
)


def built(make):
    """A model around a network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make().eval()
    adapters = Adapters(network)
    adapters.do("full")
    return Model("built", "causal", adapters, CausalObjective(byte_tokenizer(), 64))


def said(model, asked, packed):
    """Return the answers' log-probabilities, and the gradients of their sum, each by how often it was drawn."""
    outputs = model.objective.forward(model.network, lay_out(model, asked, packed=packed))
    log_p = -item_losses(outputs)
    counts = torch.tensor([n for one in asked for n in one.of_tokens(one.counts)])
    slopes = torch.linspace(-1, 1, len(log_p))
    (counts * slopes * log_p).sum().backward()
    gradients = {name: p.grad for name, p in model.adapters.trainable().items() if p.grad is not None}
    model.network.zero_grad()
    return log_p.detach(), outputs.targets, gradients


def assert_packed_says_what_rows_say(model, asked):
    log_p, targets, gradients = said(model, asked, packed=True)
    in_rows, wanted_targets, wanted = said(model, asked, packed=False)
    assert targets.tolist() == [token for one in asked for ids in one.responses for token in ids]
    assert targets.tolist() == wanted_targets.tolist()
    torch.testing.assert_close(log_p, in_rows, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == wanted.keys()
    assert gradients
    for name, gradient in gradients.items():
        scale = max(1.0, wanted[name].abs().max().item())
        torch.testing.assert_close(gradient / scale, wanted[name] / scale, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_pocket_says_of_answers_side_by_side_what_it_says_of_rows(adapter):
    model = load_model(ModelConfig(POCKET, ADAPTERS[adapter]), [prompt_task(0)], 0)
    model.network.eval()
    if adapter == "lora":
        with torch.no_grad():  # B begins at 0, where A has no gradient
            for name, p in model.adapters.trainable().items():
                if "lora_B" in name:
                    p.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    assert can_be_packed(model)
    assert_packed_says_what_rows_say(model, answered(*UNEQUAL, n_words=2048))


@pytest.mark.parametrize("make", PACKED.values(), ids=PACKED.keys())
def test_so_does_any_attention_that_takes_the_mask(make):
    model = built(make)
    assert can_be_packed(model)
    assert_packed_says_what_rows_say(model, answered(*UNEQUAL))


@pytest.mark.parametrize("make", IN_ROWS.values(), ids=IN_ROWS.keys())
def test_models_that_would_mix_answers_up_have_a_row_each(make):
    assert not can_be_packed(built(make))


def test_a_window_that_holds_every_example_is_none():
    make = IN_ROWS["mistral, whose window slides"]
    model = built(make)
    model.objective.max_length = 50
    assert can_be_packed(model)
    assert_packed_says_what_rows_say(model, answered(*UNEQUAL))


def test_models_with_soft_prompts_have_a_row_each(llama, bert):
    run = make_bench("causal_lora", llama, bert).run([{"name": "progressive_prompts", "length": 3}])
    run.learn(prompt_task(0))
    assert not can_be_packed(run.model)


def test_a_prompt_and_its_answers_are_laid_out_as_told(llama):
    model = load_model(ModelConfig(str(llama), AdapterConfig("full")), [prompt_task(0)], 0)
    asked = [
        Answered(None, {}, (0, 0), [5, 6, 7], [[8, 9], [10]], [1, 2]),
        Answered(None, {}, (0, 0), [11], [[12]], [3]),
    ]
    batch = lay_out(model, asked, packed=True)
    pad = model.objective.pad_id
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 7, 10], [11, 12, *[pad] * 5]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 2, 3], [0, 1, 0, 0, 0, 0, 0]]
    ignored = IGNORED
    assert batch["labels"].tolist() == [
        [ignored, ignored, ignored, 8, 9, ignored, 10],
        [ignored, 12, *[ignored] * 5],
    ]
    reads = batch["attention_mask"][0, 0]
    assert reads[4].tolist() == [True, True, True, True, True, False, False]
    assert reads[6].tolist() == [True, True, False, False, False, True, True]
    assert [one.n_tokens for one in asked] == [7, 2]
    assert asked[0].of_tokens([0.5, -1.0]) == [0.5, 0.5, -1.0]


def test_equal_answers_are_one_that_counts_more():
    assert distinct([[1, 2], [3], [1, 2], [1], [3], [1, 2]]) == ([[1, 2], [3], [1]], [3, 2, 1])


@pytest.mark.parametrize("packed", [True, False])
def test_parts_hold_all_and_no_more_tokens_than_told(llama, packed):
    model = load_model(ModelConfig(str(llama), AdapterConfig("full")), [prompt_task(0)], 0)
    asked = answered(*UNEQUAL, (30, [10, 3, 4], [1, 1, 1]))
    parts = cut(asked, 60, packed=packed)
    assert len(parts) > 1
    assert sorted(id(one) for part in parts for one in part) == sorted(map(id, asked))
    for part in parts:
        n_tokens = lay_out(model, part, packed=packed)["input_ids"].numel()
        assert n_tokens <= 60 or len(part) == 1
    assert len(cut(asked, 10_000, packed=packed)) == 1

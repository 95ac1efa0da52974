"""Several rows in one sequence: laid out as planned, and the same losses and gradients as rows that are padded."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
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

from everlearn import registry
from everlearn.errors import ConfigError
from everlearn.learners.loader import EncodedMixture
from everlearn.learners.sft import n_tokens
from everlearn.models.adapters import Adapters
from everlearn.models.causal import CausalObjective
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.models.objectives import IGNORED, mean_loss
from everlearn.models.packing import NO_ROW, check_packing, collate_packed
from everlearn.types import Mixture
from support.models import HEADS, N_WORDS, SIZES, byte_tokenizer
from support.runs import assert_same, make_bench, suits, weights
from support.tasks import classify_task, prompt_task

NAMES = [name for name in registry.names("strategy") if suits(registry.find("strategy", name), "causal_lora")]
PROMPTS = ("l2p", "progressive_prompts")


def llama(**options):
    return LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, **options))


def lora_on_the_output_layer():
    config = LoraConfig(target_modules=["q_proj", "lm_head"], task_type=TaskType.CAUSAL_LM, init_lora_weights=False)
    return get_peft_model(llama(), config)


MODELS = {
    "llama, sdpa": lambda: llama(attn_implementation="sdpa"),
    "llama, eager": lambda: llama(attn_implementation="eager"),
    "gpt2, which learns its positions": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=N_WORDS, n_embd=16, n_layer=2, n_head=2)
    ),
    "gemma2, whose layers slide a window or not": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, **HEADS, sliding_window=4)
    ),
    "mistral, whose window slides": lambda: MistralForCausalLM(MistralConfig(**SIZES, **HEADS, sliding_window=4)),
    "lora on the output layer": lora_on_the_output_layer,
}


def objective():
    return CausalObjective(byte_tokenizer(), 64)


def rows(*lengths):
    """Rows of random tokens, the last third of each a target; of the first, all tokens."""
    generator = np.random.default_rng(0)
    picked = []
    for row, n in enumerate(lengths):
        ids = generator.integers(3, N_WORDS, n)
        labels = np.where(np.arange(n) >= (n - n // 3 if row else 0), ids, IGNORED)
        picked.append({"input_ids": ids, "labels": labels, "row": row})
    return picked


def built(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def test_rows_share_sequences_no_longer_than_the_longest():
    picked = rows(3, 6, 2, 1)
    batch = collate_packed(objective(), picked, in_one=False)
    assert batch["rows"].tolist() == [[1] * 6, [0, 0, 0, 2, 2, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 0]]
    assert batch["input_ids"][1].tolist() == [*picked[0]["input_ids"], *picked[2]["input_ids"], *picked[3]["input_ids"]]
    assert batch["labels"][1].tolist() == [IGNORED, *picked[0]["labels"][1:], IGNORED, picked[2]["labels"][1], IGNORED]
    assert n_tokens(batch) == 12
    assert objective().items_of_rows(batch).tolist() == [2, 2, 0, 0]


def test_what_is_left_of_a_sequence_is_padding_of_its_own():
    batch = collate_packed(objective(), rows(5, 2, 2), in_one=False)
    assert batch["rows"][1].tolist() == [1, 1, 2, 2, NO_ROW]
    assert batch["position_ids"][1].tolist() == [0, 1, 0, 1, 0]
    assert (batch["input_ids"][1, 4], batch["labels"][1, 4]) == (objective().pad_id, IGNORED)


def test_all_in_one_has_no_padding():
    batch = collate_packed(objective(), rows(4, 4, 7), in_one=True)
    assert batch["rows"].tolist() == [[2] * 7 + [0] * 4 + [1] * 4]


def test_rows_that_dont_fit_together_are_padded_as_ever():
    picked = rows(4, 5, 4)
    batch, wanted = collate_packed(objective(), picked, in_one=False), objective().collate(picked)
    assert batch.keys() == wanted.keys()
    assert all(torch.equal(batch[name], wanted[name]) for name in batch)


@pytest.mark.parametrize("in_one", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_those_of_padded_rows(name, in_one):
    network, picked = built(MODELS[name]), rows(4, 11, 6, 3, 1, 5)
    check_packing(Model(name, "causal", Adapters(network.requires_grad_(True)), objective()))
    network.requires_grad_(True)
    found = {}
    for way, batch in (
        ("padded", objective().collate(picked)),
        ("packed", collate_packed(objective(), picked, in_one=in_one)),
    ):
        outputs = objective().forward(network, batch)
        gradients = torch.autograd.grad(mean_loss(outputs), list(network.parameters()), allow_unused=True)
        found[way] = (outputs, [g for g in gradients if g is not None], objective().items_of_rows(batch))
    assert "rows" in batch
    (padded, wanted, n_items), (packed, gradients, n_packed) = found["padded"], found["packed"]
    assert torch.equal(packed.owners, padded.owners)
    assert torch.equal(packed.targets, padded.targets)
    assert torch.equal(n_packed, n_items)
    torch.testing.assert_close(packed.logits, padded.logits, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class Mixing(LlamaForCausalLM):
    """Takes positions, and lets each token see all before it all the same."""

    def forward(self, input_ids=None, position_ids=None, use_cache=None):
        mask = torch.ones_like(input_ids)
        return super().forward(input_ids, attention_mask=mask, position_ids=position_ids, use_cache=use_cache)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: MambaForCausalLM(MambaConfig(**SIZES, state_size=4)), "MambaForCausalLM takes no positions"),
        (lambda: Mixing(LlamaConfig(**SIZES, **HEADS)), r"Mixing mixes the rows of a sequence \(tried with two\)"),
    ],
)
def test_models_that_cant_keep_rows_apart_are_refused(make, reason):
    model = Model("it", "causal", Adapters(built(make)), objective())
    with pytest.raises(ConfigError, match=rf"^learner.packing: {reason}"):
        check_packing(model)


@pytest.mark.parametrize("adapter", ["prompt", "prefix", "lora_prompt"])
def test_soft_prompts_are_refused(llama, adapter):
    model = load_model(ModelConfig(str(llama), AdapterConfig(adapter)), [prompt_task(0)])
    with pytest.raises(ConfigError, match=r"^learner.packing: soft prompts and prefixes stand before a sequence once"):
        check_packing(model)


def test_classifiers_are_refused(bert):
    model = load_model(ModelConfig(str(bert)), [classify_task(0)])
    with pytest.raises(ConfigError, match=r"^learner.packing: is for language models that write.* kind classify"):
        check_packing(model)


@pytest.fixture(scope="module")
def bench(llama, bert):
    """Tasks whose rows differ in length."""
    bench = make_bench("causal_lora", llama, bert)
    tasks = tuple(replace(task, train=_of_many_lengths(task.train)) for task in bench.tasks)
    return replace(bench, tasks=tasks)


def _of_many_lengths(rows):
    return [{**row, "prompt": row["prompt"] * (1 + 3 * (i % 2))} for i, row in enumerate(rows)]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PROMPTS])
def test_every_method_learns_the_same_from_packed_rows(name, bench):
    options = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 1, "batch_size": 4, "group_by_length": False}
    padded = bench.learn(bench.run([name], **options))
    packed = bench.learn(bench.run([name], packing=True, **options))
    assert_same(weights(padded), weights(packed), tolerance=1e-5)


@pytest.mark.parametrize("name", PROMPTS)
def test_methods_that_bring_prompts_are_refused(name, bench):
    with pytest.raises(ConfigError, match=rf"strategy '{name}': its prompts stand before a sequence once"):
        bench.run([name], packing=True)


def test_the_bench_s_rows_fit_together(bench):
    run = bench.run()
    collate = partial(collate_packed, run.model.objective, in_one=False)
    encoded = EncodedMixture(Mixture.of(bench.tasks[0]), run.model.objective, collate=collate)
    assert "rows" in encoded.__getitems__([(0, row) for row in range(4)])


@pytest.mark.parametrize(("packing", "sorts"), [(True, False), (False, "auto")])
def test_packed_rows_come_in_random_order(bench, packing, sorts):
    run = bench.run(packing=packing)
    encoded = EncodedMixture(Mixture.of(bench.tasks[0]), run.model.objective)
    assert run.learner._plan(run, bench.tasks[0], encoded).group_by_length == sorts

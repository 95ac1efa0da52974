"""The rule behind `learning_rate: auto`."""

from pathlib import Path

import pytest
from peft import IA3Config, LoraConfig, PeftConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from everlearn.learners.rates import learning_rate_for
from everlearn.models.given import Given
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.types import Task, TensorRows

ROWS = [{"prompt": "a", "completion": "b"}]
WORDS = Task("words", "prompt", ROWS, ROWS)
TEXTS = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
SIGNS = Task("signs", "classify", TEXTS, TEXTS, labels=("no", "yes"))
AT_32 = 5e-4 * (2000 / 32) ** 0.781  # of a Llama of width 32, where rows are many


def rates(model: Model, *batch_sizes: int) -> list[float]:
    return [learning_rate_for(model, size) for size in batch_sizes]


def load(folder: Path, adapter: str, task: Task = WORDS) -> Model:
    return load_model(ModelConfig(str(folder), AdapterConfig(adapter)), [task])


def given(network: nn.Module, llama: Path) -> Model:
    """The model of a network that the caller has loaded, with the tokenizer of the tiny Llama."""
    tokenizer = AutoTokenizer.from_pretrained(llama)
    return load_model(Given(network, tokenizer, ModelConfig("given")), [WORDS])


def test_lora_falls_with_the_root_of_the_rows_and_stays_where_they_are_many(llama: Path) -> None:
    found = rates(load(llama, "lora"), 1, 2, 8, 32, 64)
    assert found == pytest.approx([AT_32 / 32**0.5, AT_32 / 4, AT_32 / 2, AT_32, AT_32])


def test_all_weights_take_a_tenth_of_a_loras_rate(llama: Path) -> None:
    assert rates(load(llama, "full"), 8, 32) == pytest.approx([AT_32 / 20, AT_32 / 10])


@pytest.mark.parametrize("adapter", ["prompt", "prefix"])
def test_vectors_before_the_text_have_a_rate_of_their_own(llama: Path, adapter: str) -> None:
    assert rates(load(llama, adapter), 2, 32, 64) == pytest.approx([0.15 / 4, 0.15, 0.15])


def test_a_prompt_beside_a_lora_takes_the_loras(llama: Path) -> None:
    assert rates(load(llama, "lora_prompt"), 32) == pytest.approx([AT_32])


def test_a_classifier_is_given_the_rate_of_its_encoder(bert: Path) -> None:
    assert rates(load(bert, "lora", SIGNS), 32) == pytest.approx([AT_32])
    assert rates(load(bert, "full", SIGNS), 32) == pytest.approx([AT_32 / 10])


def test_plain_modules_have_one_rate_whatever_the_batch() -> None:
    rows = TensorRows(nn.Linear(3, 4).weight.detach(), nn.Linear(1, 1).weight.new_zeros(4).long())
    task = Task("rows", "tensor", rows, rows, labels=("a", "b"))
    assert rates(load_model(nn.Linear(3, 2), [task]), 1, 64) == [1e-3, 1e-3]


def qwen(width: int) -> PreTrainedModel:
    sizes = {"vocab_size": 300, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Qwen3ForCausalLM(Qwen3Config(hidden_size=width, num_key_value_heads=1, head_dim=8, **sizes))


def test_a_qwens_rate_hardly_depends_on_its_width(llama: Path) -> None:
    (narrow,), (wide,) = rates(given(qwen(16), llama), 32), rates(given(qwen(64), llama), 32)
    assert narrow == pytest.approx(5e-4 * (2000 / 16) ** 0.0775)
    assert narrow / wide == pytest.approx(4**0.0775)


def test_an_architecture_that_is_not_listed_counts_as_a_llama_of_its_width(llama: Path) -> None:
    network = GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    )
    assert rates(given(network, llama), 32) == pytest.approx([AT_32])


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        (LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"), AT_32),
        (IA3Config(target_modules=["v_proj"], feedforward_modules=[], task_type="CAUSAL_LM"), AT_32),
        (PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), 0.15),
    ],
)
def test_a_peft_model_keeps_the_rate_of_its_own_adapter(llama: Path, adapter: PeftConfig, expected: float) -> None:
    network = get_peft_model(AutoModelForCausalLM.from_pretrained(llama), adapter)
    assert rates(given(network, llama), 32) == pytest.approx([expected])

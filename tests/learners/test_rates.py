"""The rule behind `learning_rate: auto`."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from everlearn.learners.rates import learning_rate_for
from everlearn.models.given import Given
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.types import Task, TensorRows

ROWS = [{"prompt": "a", "completion": "b"}]
PROMPT = Task("words", "prompt", ROWS, ROWS)
LABELLED = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
CLASSIFY = Task("signs", "classify", LABELLED, LABELLED, labels=("no", "yes"))


def model_with(name: Path, adapter: str, task: Task = PROMPT) -> Model:
    return load_model(ModelConfig(str(name), AdapterConfig(adapter)), [task])


def test_lora_of_a_llama_follows_the_width_and_the_root_of_few_rows(llama: Path) -> None:
    model = model_with(llama, "lora")  # width 32
    enough = 5e-4 * (2000 / 32) ** 0.781
    assert [learning_rate_for(model, n) for n in (2, 8, 32, 64)] == pytest.approx(
        [enough / 4, enough / 2, enough, enough]
    )

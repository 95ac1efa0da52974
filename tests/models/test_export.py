"""Exported models load without everlearn and answer the same."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from everlearn.errors import ConfigError, ModelError
from everlearn.models.export import export_model
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.models.lora import begin_lora
from everlearn.types import Task

PROMPTS = Task("sums", "prompt", [], [{"prompt": "1+1=", "completion": "2"}])
FIRST = Task("first", "classify", [], [{"text": "red cat", "label": 0}], labels=("warm", "cold"))
SECOND = Task("second", "classify", [], [{"text": "blue dog", "label": 2}], labels=("x", "y", "z"))
TAGS = Task("tags", "tag", [], [{"tokens": ["anna"], "tags": [1]}], labels=("O", "B-PER", "I-PER"))
SENTENCES = ["red cat", "good blue dog is paris", "anna"]


def shake(model: Model, seed: int) -> None:
    """Move all trainable weights away from where they are, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.adapters.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.network.eval()


def moved(folder: Path, tasks: list[Task], adapter: str = "lora", head: str = "task") -> Model:
    """Return a model whose trainable weights are all away from where they began."""
    model = load_model(ModelConfig(str(folder), AdapterConfig(adapter, rank=4), head=head), tasks, seed=3)
    for task in tasks:
        if task.labels:
            model.adapters.do("labels", task=task.name, labels=list(task.labels), seed=3)
    shake(model, 1)
    return model


def inputs(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt"))


@torch.no_grad()
def logits(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return network.eval()(**batch).logits


def labelled_logits(model: Model, task: Task, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    shared = model.adapters.head_mode == "shared"
    blocks = range(len(model.adapters.head.blocks)) if shared else [model.adapters.task_blocks[task.name]]
    model.adapters.head.active = list(blocks)
    return logits(model.network, batch)


def test_lora_of_a_language_model_is_a_plain_peft_adapter(llama: Path, tmp_path: Path) -> None:
    model = moved(llama, [PROMPTS])
    batch = inputs(llama)
    expected = logits(model.network, batch)
    folder = export_model(model, tmp_path / "out")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(llama)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), folder)
    assert torch.equal(logits(loaded, batch), expected)
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(llama), batch), expected, atol=1e-2)
    assert AutoTokenizer.from_pretrained(folder)("a b")["input_ids"] == model.tokenizer("a b")["input_ids"]
    assert "PeftModel.from_pretrained" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("adapter", "merged"), [("lora", True), ("full", False), ("full", True)])
def test_whole_language_model(llama: Path, tmp_path: Path, adapter: str, merged: bool) -> None:
    model = moved(llama, [PROMPTS], adapter)
    batch = inputs(llama)
    expected = logits(model.network, batch)
    folder = export_model(model, tmp_path / "out", merged=merged)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(loaded, batch), expected, atol=1e-4, rtol=1e-4)
    assert not (folder / "adapter_config.json").exists()


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_classifier_with_a_head_per_task(bert: Path, tmp_path: Path, adapter: str) -> None:
    model = moved(bert, [FIRST, SECOND], adapter)
    batch = inputs(bert)
    expected = labelled_logits(model, SECOND, batch)
    folder = export_model(model, tmp_path / "out", merged=True, task="second")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.testing.assert_close(logits(loaded, batch), expected, atol=1e-5, rtol=1e-4)
    assert loaded.config.id2label == {0: "x", 1: "y", 2: "z"}
    assert loaded.config.num_labels == 3


def test_classifier_with_a_shared_head(bert: Path, tmp_path: Path) -> None:
    model = moved(bert, [FIRST, SECOND], head="shared")
    batch = inputs(bert)
    expected = labelled_logits(model, FIRST, batch)
    folder = export_model(model, tmp_path / "out", merged=True)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.testing.assert_close(logits(loaded, batch), expected, atol=1e-5, rtol=1e-4)
    assert list(loaded.config.id2label.values()) == ["warm", "cold", "x", "y", "z"]


@pytest.mark.parametrize("merged", [False, True])
def test_token_classifier(bert: Path, tmp_path: Path, merged: bool) -> None:
    model = moved(bert, [TAGS])
    batch = inputs(bert)
    expected = labelled_logits(model, TAGS, batch)
    folder = export_model(model, tmp_path / "out", merged=merged)
    if merged:
        loaded = AutoModelForTokenClassification.from_pretrained(folder)
    else:
        base = AutoModelForTokenClassification.from_pretrained(bert, num_labels=3)
        loaded = PeftModel.from_pretrained(base, folder)
    torch.testing.assert_close(logits(loaded, batch), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("merged", [False, True])
def test_decoder_classifier_whose_head_has_no_bias(llama: Path, tmp_path: Path, merged: bool) -> None:
    model = moved(llama, [FIRST, SECOND])
    batch = inputs(llama)
    expected = labelled_logits(model, SECOND, batch)
    folder = export_model(model, tmp_path / "out", merged=merged, task="second")
    if merged:
        loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    else:
        base = AutoModelForSequenceClassification.from_pretrained(llama, num_labels=3)
        loaded = PeftModel.from_pretrained(base, folder)
    torch.testing.assert_close(logits(loaded, batch), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("vectors", [False, True])
def test_several_loras_become_one(llama: Path, tmp_path: Path, merged: bool, vectors: bool) -> None:
    model = moved(llama, [PROMPTS])
    for number in range(2):
        begin_lora(model.adapters, seed=0)
        shake(model, number)
    if vectors:
        model.adapters.do("lora_vectors")
        shake(model, 3)
    batch = inputs(llama)
    expected = logits(model.network, batch)
    folder = export_model(model, tmp_path / "out", merged=merged)
    if merged:
        loaded = AutoModelForCausalLM.from_pretrained(folder)
    else:
        assert json.loads((folder / "adapter_config.json").read_text())["r"] == 12
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), folder)
    torch.testing.assert_close(logits(loaded, batch), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("merged", [False, True])
def test_a_lora_with_vectors_becomes_a_plain_one(llama: Path, tmp_path: Path, merged: bool) -> None:
    model = moved(llama, [PROMPTS])
    model.adapters.do("lora_vectors")
    shake(model, 2)
    batch = inputs(llama)
    expected = logits(model.network, batch)
    folder = export_model(model, tmp_path / "out", merged=merged)
    base = AutoModelForCausalLM.from_pretrained(folder if merged else llama)
    loaded = base if merged else PeftModel.from_pretrained(base, folder)
    torch.testing.assert_close(logits(loaded, batch), expected, atol=1e-4, rtol=1e-4)


def test_a_decoder_classifier_s_several_loras_with_its_head(llama: Path, tmp_path: Path) -> None:
    model = moved(llama, [FIRST, SECOND])
    begin_lora(model.adapters, seed=0)
    shake(model, 2)
    batch = inputs(llama)
    expected = labelled_logits(model, SECOND, batch)
    folder = export_model(model, tmp_path / "out", task="second")
    base = AutoModelForSequenceClassification.from_pretrained(llama, num_labels=3)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, folder), batch), expected, atol=1e-4, rtol=1e-4)


def test_soft_prompts_are_refused(llama: Path, tmp_path: Path) -> None:
    model = moved(llama, [PROMPTS])
    model.adapters.do("add_prompt", length=2, mlp=0, place=0, seed=0)
    with pytest.raises(ModelError, match="soft prompts are no part of a plain model"):
        export_model(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_adapter_that_peft_could_not_load_is_refused(bert: Path, tmp_path: Path) -> None:
    model = moved(bert, [FIRST])
    with pytest.raises(ModelError, match=r"LoRA stands inside layers that the base model lacks.*--merged"):
        export_model(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unclear_head_is_refused(bert: Path, tmp_path: Path) -> None:
    model = moved(bert, [FIRST, SECOND])
    with pytest.raises(ConfigError, match=r"each task has a head of its own.*first, second"):
        export_model(model, tmp_path / "out", merged=True)
    with pytest.raises(ConfigError, match=r"has no head.*Did you mean 'second'"):
        export_model(model, tmp_path / "out", merged=True, task="secnd")
    shared = moved(bert, [FIRST], head="shared")
    with pytest.raises(ConfigError, match="all tasks share one head"):
        export_model(shared, tmp_path / "out", merged=True, task="first")


def test_folder_in_use_is_refused(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    model = moved(llama, [PROMPTS])
    with pytest.raises(ConfigError, match="the folder is not empty"):
        export_model(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    with pytest.raises(ConfigError, match="a language model has no heads"):
        export_model(model, tmp_path / "out", task="sums")


def test_empty_folder_is_used(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert (export_model(moved(llama, [PROMPTS]), tmp_path / "out") / "adapter_model.safetensors").exists()

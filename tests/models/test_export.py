"""Exported models load without everlearn and answer the same."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from everlearn.errors import ConfigError, ModelError
from everlearn.models.adapters import TIED
from everlearn.models.export import export_model, save_trained
from everlearn.models.gguf import PACKAGED
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.models.lora import begin_lora
from everlearn.models.reloaded import AUTO
from everlearn.state import file_sha256
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


def moved(folder: Path | str, tasks: list[Task], adapter: str = "lora", head: str = "task") -> Model:
    """Return a model whose trainable weights are all away from where they began."""
    model = load_model(ModelConfig(str(folder), AdapterConfig(adapter, rank=4), head=head), tasks, seed=3)
    for task in tasks:
        if task.labels:
            model.adapters.do("labels", task=task.name, labels=list(task.labels), seed=3)
    shake(model, 1)
    return model


def export(model: Model, folder: Path, **options: Any) -> Path:
    """Export a model of one of the tasks above; return the folder."""
    exported = export_model(model, folder, {"causal": PROMPTS, "classify": FIRST, "tag": TAGS}[model.kind], **options)
    assert exported.difference < 1e-4
    return exported.path


@torch.no_grad()
def logits(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return network.eval()(**batch).logits


def head_of(model: Model, task: Task) -> Model:
    """Return the model with the head active that a task is answered by."""
    shared = model.adapters.head_mode == "shared"
    blocks = range(len(model.adapters.head.blocks)) if shared else [model.adapters.task_blocks[task.name]]
    model.adapters.head.active = list(blocks)
    return model


def with_loras(model: Model, vectors: bool) -> Model:
    """Return the model with two more LoRAs that moved, beside the one it has."""
    for number in range(2):
        begin_lora(model.adapters, seed=0)
        shake(model, number)
    if vectors:
        model.adapters.do("lora_vectors")
        shake(model, 3)
    return model


def tied(folder: Path, target: str) -> Model:
    """Return a model with a LoRA on one of two layers that share their matrix."""
    config = ModelConfig(str(folder), AdapterConfig(rank=4, targets=["q_proj", target]))
    model = load_model(config, [PROMPTS], seed=3)
    shake(model, 1)
    return model


def chatting(folder: Path, adapter: str) -> Model:
    """Return a model that was given a chat template, whose marks are new tokens."""
    config = ModelConfig(str(folder), AdapterConfig(adapter, rank=4), chat_template="chatml")
    model = load_model(config, [PROMPTS], seed=3)
    shake(model, 1)
    return model


# name -> (the model, from the folders of a causal LM and of an encoder; the task whose head is exported)
MODELS: dict[str, Any] = {
    "lora": (lambda llama, bert: moved(llama, [PROMPTS]), None),
    "full": (lambda llama, bert: moved(llama, [PROMPTS], "full"), None),
    "stacked": (lambda llama, bert: with_loras(moved(llama, [PROMPTS]), vectors=False), None),
    "stacked_vectors": (lambda llama, bert: with_loras(moved(llama, [PROMPTS]), vectors=True), None),
    "tied_output": (lambda llama, bert: tied(llama, "lm_head"), None),
    "tied_embedding": (lambda llama, bert: tied(llama, "embed_tokens"), None),
    "new_tokens": (lambda llama, bert: chatting(llama, "lora"), None),
    "new_tokens_full": (lambda llama, bert: chatting(llama, "full"), None),
    "decoder_task": (lambda llama, bert: head_of(moved(llama, [FIRST, SECOND]), SECOND), "second"),
    "decoder_stacked": (lambda llama, bert: head_of(with_loras(moved(llama, [FIRST]), False), FIRST), "first"),
    "bert_full": (lambda llama, bert: head_of(moved(bert, [FIRST, SECOND], "full"), SECOND), "second"),
    "tag": (lambda llama, bert: head_of(moved(bert, [TAGS]), TAGS), "tags"),
}
MERGED_ONLY: dict[str, Any] = {
    "bert_task": (lambda llama, bert: head_of(moved(bert, [FIRST, SECOND]), SECOND), "second"),
    "bert_shared": (lambda llama, bert: head_of(moved(bert, [FIRST, SECOND], head="shared"), FIRST), None),
}
CASES = [*((name, merged) for name in MODELS for merged in (False, True)), *((name, True) for name in MERGED_ONLY)]


@pytest.mark.filterwarnings(f"ignore:{TIED}:UserWarning")  # peft's, when the README's code runs
@pytest.mark.parametrize(("name", "merged"), CASES)
def test_the_readme_loads_what_was_measured(name, merged, llama, bert, tmp_path, monkeypatch, capfd) -> None:
    build, task = (MODELS | MERGED_ONLY)[name]
    model = build(llama, bert)
    batch = dict(model.tokenizer(SENTENCES, padding=True, return_tensors="pt"))
    expected = logits(model.network, batch)
    folder = export(model, tmp_path / "out", merged=merged, task=task)
    monkeypatch.chdir(folder)
    loaded: dict[str, Any] = {}
    exec((folder / "README.md").read_text().split("```python\n")[1].split("```")[0], loaded)
    torch.testing.assert_close(logits(loaded["model"], batch), expected, atol=1e-4, rtol=1e-4)
    assert loaded["tokenizer"](SENTENCES)["input_ids"] == model.tokenizer(SENTENCES)["input_ids"]
    assert (folder / "adapter_config.json").exists() == (not merged and "full" not in name)
    assert "shards" not in capfd.readouterr().err
    plain = AUTO[model.kind].from_pretrained(bert if "bert" in name or name == "tag" else llama, num_labels=99)
    assert logits(plain, batch).shape != expected.shape or not torch.allclose(logits(plain, batch), expected, atol=0.01)


@pytest.mark.filterwarnings(f"ignore:{TIED}:UserWarning")
@pytest.mark.parametrize("task", [PROMPTS, FIRST], ids=["prompt", "classify"])
@pytest.mark.parametrize("packaged", [False, True], ids=["file", "packaged"])
def test_an_adapter_of_a_gguf_file_names_the_file(task, packaged, tiny_gguf, tmp_path, monkeypatch) -> None:
    if packaged:
        package = tmp_path / "tiny_package"
        package.mkdir()
        shutil.copy(tiny_gguf, package)
        (package / "__init__.py").write_text("raise ImportError")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(PACKAGED, "tiny", ("tiny-package", "tiny_package"))
    name = "tiny" if packaged else str(tiny_gguf)
    model = moved(name, [task])
    batch = dict(model.tokenizer(SENTENCES, padding=True, return_tensors="pt"))
    if task.labels:
        model = head_of(model, task)
    expected = logits(model.network, batch)
    folder = export(model, tmp_path / "out")
    readme = (folder / "README.md").read_text()
    assert f"Base model: {name} (tiny.gguf, SHA-256 {file_sha256(tiny_gguf)})." in readme
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == name
    assert "cache" not in readme
    monkeypatch.chdir(folder)
    loaded: dict[str, Any] = {}
    exec(readme.split("```python\n")[1].split("```")[0], loaded)
    torch.testing.assert_close(logits(loaded["model"], batch), expected, atol=1e-4, rtol=1e-4)
    assert loaded["tokenizer"](SENTENCES)["input_ids"] == model.tokenizer(SENTENCES)["input_ids"]


def test_a_lora_is_a_plain_peft_adapter(llama: Path, tmp_path: Path) -> None:
    folder = export(moved(llama, [PROMPTS]), tmp_path / "out")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(llama)
    stacked = export(with_loras(moved(llama, [PROMPTS]), vectors=False), tmp_path / "stacked")
    assert json.loads((stacked / "adapter_config.json").read_text())["r"] == 12


def test_a_head_s_labels_go_along(bert: Path, tmp_path: Path) -> None:
    for name, task, labels in (("bert_task", "second", ["x", "y", "z"]), ("bert_shared", None, [*"xyz"])):
        folder = export(MERGED_ONLY[name][0](None, bert), tmp_path / name, merged=True, task=task)
        config = AutoConfig.from_pretrained(folder)
        assert config.num_labels == len(config.id2label)
        assert list(config.id2label.values())[-3:] == labels


def test_tied_embeddings_become_two_matrices_only_where_a_lora_is_merged(llama: Path, tmp_path: Path) -> None:
    for name, model in (("apart", tied(llama, "lm_head")), ("tied", moved(llama, [PROMPTS]))):
        folder = export(model, tmp_path / name, merged=True)
        assert AutoConfig.from_pretrained(folder).tie_word_embeddings == (name == "tied")


def test_what_answers_otherwise_is_not_kept(llama: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(llama, tmp_path / "base"))
    model = moved(base, [PROMPTS])
    other = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        other.model.embed_tokens.weight.add_(0.1 * torch.randn(other.model.embed_tokens.weight.shape))
    other.save_pretrained(base)
    with pytest.raises(
        ModelError, match=r"^export: what was written answers otherwise than the model; it was not kept"
    ):
        export(model, tmp_path / "out")
    with pytest.raises(ModelError, match="answers otherwise"):
        save_trained(model, tmp_path / "kept", PROMPTS)
    shutil.rmtree(base)
    with pytest.raises(ModelError, match=r"^export: can't be loaded back .*--merged"):
        export(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("merged", [False, True])
def test_weights_of_half_precision(llama: Path, tmp_path: Path, merged: bool) -> None:
    model = load_model(ModelConfig(str(llama), dtype="bfloat16"), [PROMPTS], seed=3)
    shake(model, 1)
    exported = export_model(model, tmp_path / "out", PROMPTS, merged=merged)
    assert exported.difference < 1.0
    assert str(exported).startswith("checked: logits of 1 row differ by at most ")
    assert "dtype='bfloat16'" in (exported.path / "README.md").read_text()


def test_soft_prompts_are_refused(llama: Path, tmp_path: Path) -> None:
    model = moved(llama, [PROMPTS])
    model.adapters.do("add_prompt", length=2, mlp=0, place=0, seed=0)
    with pytest.raises(ModelError, match="soft prompts are no part of a plain model"):
        export(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_adapter_that_peft_could_not_load_is_refused(bert: Path, tmp_path: Path) -> None:
    model = moved(bert, [FIRST])
    with pytest.raises(ModelError, match=r"LoRA stands inside layers that the base model lacks.*--merged"):
        export(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unclear_head_is_refused(bert: Path, tmp_path: Path) -> None:
    model = moved(bert, [FIRST, SECOND])
    with pytest.raises(ConfigError, match=r"each task has a head of its own.*first, second"):
        export(model, tmp_path / "out", merged=True)
    with pytest.raises(ConfigError, match=r"has no head.*Did you mean 'second'"):
        export(model, tmp_path / "out", merged=True, task="secnd")
    shared = moved(bert, [FIRST], head="shared")
    with pytest.raises(ConfigError, match="all tasks share one head"):
        export(shared, tmp_path / "out", merged=True, task="first")


def test_folder_in_use_is_refused(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    model = moved(llama, [PROMPTS])
    with pytest.raises(ConfigError, match="the folder is not empty"):
        export(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    with pytest.raises(ConfigError, match="a language model has no heads"):
        export(model, tmp_path / "out", task="sums")


def test_empty_folder_is_used(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert (export(moved(llama, [PROMPTS]), tmp_path / "out") / "adapter_model.safetensors").exists()

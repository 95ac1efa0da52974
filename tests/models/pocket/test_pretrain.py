import json
from importlib import resources

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from everlearn.models.pocket.pretrain import pretrain


@pytest.mark.parametrize("total_tokens", [100_000, 20_000])  # stopped in the opening, and after it
def test_stopping_and_going_on_changes_nothing(tmp_path, tiny_file, total_tokens):
    recipe = tiny_file(total_tokens=total_tokens)
    straight = pretrain(recipe, tmp_path / "straight", max_steps=20, quiet=True)
    pretrain(recipe, tmp_path / "halved", max_steps=10, quiet=True)
    halved = pretrain(recipe, tmp_path / "halved", max_steps=20, quiet=True)
    kept = [load_file(tmp_path / run / "checkpoints" / n / "tensors.safetensors") for run, n in (
        ("straight", "000000"), ("halved", "000001")
    )]  # fmt: skip
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    assert (straight / "model.safetensors").read_bytes() == (halved / "model.safetensors").read_bytes()


def test_the_steps_go_over_more_than_one_window(tmp_path, tiny_file):
    pretrain(tiny_file(), tmp_path / "run", max_steps=20, quiet=True)
    values = json.loads((tmp_path / "run" / "checkpoints" / "000000" / "values.json").read_text())
    position = values["values"]["position"]
    assert position["window"] >= 1
    assert position["progress"] > 0
    assert position["step"] == 20


def test_a_run_ends_with_its_tokens_and_then_stays(tmp_path, tiny_file):
    recipe = tiny_file(total_tokens=2000)
    first = pretrain(recipe, tmp_path / "run", quiet=True)
    weights = (first / "model.safetensors").read_bytes()
    assert (pretrain(recipe, tmp_path / "run", quiet=True) / "model.safetensors").read_bytes() == weights


def test_the_exported_folder_loads_in_transformers(tmp_path, tiny_file):
    folder = pretrain(tiny_file(), tmp_path / "run", max_steps=2, quiet=True)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    out = model.generate(**tokenizer("2 + 2\nA:", return_tensors="pt", return_token_type_ids=False), max_new_tokens=3)
    assert out.shape[1] > 5


def test_the_shipped_model_is_small_and_adds():
    folder = resources.files("everlearn.models") / "pocket"
    sizes = {
        entry.name: entry.stat().st_size for entry in folder.iterdir() if entry.name.endswith((".json", ".safetensors"))
    }
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= set(sizes)
    assert sum(sizes.values()) <= 13_000_000
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    right = 0
    for a in range(1, 9):
        batch = tokenizer(f"What is {a} plus 3?\nA:", return_tensors="pt", return_token_type_ids=False)
        out = model.generate(**batch, max_new_tokens=4)
        right += tokenizer.decode(out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True).strip() == str(a + 3)
    assert right >= 6

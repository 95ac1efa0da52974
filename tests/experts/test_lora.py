"""LoRAs on the disk: written alike in every process, and what peft takes silently is refused."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from everlearn.errors import ModelError, StateError
from everlearn.experts import Lora
from everlearn.experts.lora import CONFIG, PREFIX, WEIGHTS
from everlearn.models.adapters import quiet_peft
from support.experts import make_lora
from support.runs import assert_same


@pytest.fixture
def folder(base, tmp_path: Path) -> Path:
    """A LoRA on q_proj and v_proj of both layers."""
    make_lora(base, 0).write(tmp_path)
    return tmp_path


def peft_folder(llama: Path, out: Path, **options: object) -> Path:
    """Write a LoRA as peft does, of its own."""
    torch.manual_seed(0)
    with quiet_peft():
        network = get_peft_model(AutoModelForCausalLM.from_pretrained(llama), LoraConfig(**options))
        network.save_pretrained(out)
    return out


def change(folder: Path, **options: object) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


def change_weights(folder: Path, edit) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_it_reads_what_it_writes(base, folder):
    lora, found = make_lora(base, 0), Lora.read(folder)
    assert_same(found.tensors, lora.tensors)
    assert (found.rank, found.targets) == (2, ["q_proj", "v_proj"])
    assert found.layers == [f"model.layers.{i}.self_attn.{name}" for i in range(2) for name in ("q_proj", "v_proj")]
    assert found.layer(found.layers[0]).scaling == 2
    found.check(base, "folder")


def test_the_files_are_the_same_whatever_the_order_of_names(base, tmp_path):
    names = sorted({name.rpartition(".")[2] for name in base.layers})
    for place, targets in (("first", names), ("second", names[::-1])):
        (tmp_path / place).mkdir()
        make_lora(base, 0, targets=targets).write(tmp_path / place)
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert json.loads((tmp_path / "first" / CONFIG).read_text())["target_modules"] == names  # a set's order is chance


def test_ranks_and_scales_follow_patterns_and_rslora(llama, base, tmp_path):
    options = {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 8}
    plain = Lora.read(peft_folder(llama, tmp_path / "plain", **options))
    assert {plain.layer(name).scaling for name in plain.layers} == {2.0}
    root = Lora.read(peft_folder(llama, tmp_path / "root", use_rslora=True, **options))
    assert {root.layer(name).scaling for name in root.layers} == {4.0}
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.0.self_attn.q_proj": 6}}
    mixed = Lora.read(peft_folder(llama, tmp_path / "mixed", **options, **patterns))
    mixed.check(base, "mixed")
    assert [(len(mixed.layer(name).down), mixed.layer(name).scaling) for name in mixed.layers] == [
        (2, 3.0), (4, 2.0), (2, 4.0), (4, 2.0),
    ]  # fmt: skip
    assert mixed.rank == 4
    some = Lora.read(peft_folder(llama, tmp_path / "some", layers_to_transform=[1], **options))
    some.check(base, "some")
    assert some.layers == ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peft_type": "IA3"}, "isn't a LoRA. Got 'IA3'"),
        ({"use_dora": True}, r"is more than a LoRA on linear layers\. Got \{'use_dora': True\}"),
        ({"bias": "all"}, "is more than a LoRA"),
        ({"modules_to_save": ["lm_head"]}, "is more than a LoRA"),
        ({"init_lora_weights": "pissa"}, "is more than a LoRA"),
        ({"something_newer": 3}, r"Got \{'something_newer': 3\}"),
        ({"target_modules": "all-linear"}, "doesn't say on which layers it stands"),
    ],
)
def test_what_is_more_than_a_lora_is_refused(folder, options, message):
    change(folder, **options)
    with pytest.raises(ModelError, match=message):
        Lora.read(folder)


def test_a_missing_layer_is_named(base, folder):
    change_weights(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".1." in name])
    with pytest.raises(
        ModelError, match=r"it: 4 of 8 weights are missing\. Got \['base_model\.model\.model\.layers\.1"
    ):
        Lora.read(folder).check(base, "it")


def test_a_layer_that_the_base_lacks_is_named(base, folder):
    name = f"{PREFIX}model.layers.2.self_attn.q_proj.lora_A.weight"
    change_weights(folder, lambda tensors: tensors.update({name: torch.zeros(2, 32)}))
    with pytest.raises(ModelError, match="has weights that the base has no place for"):
        Lora.read(folder).check(base, "it")
    change(folder, target_modules=["query"])
    with pytest.raises(ModelError, match="has weights that the base has no place for"):
        Lora.read(folder).check(base, "it")
    change_weights(folder, lambda tensors: tensors.clear())
    with pytest.raises(ModelError, match=r"stands on no layer of the base\. Got \['query'\]"):
        Lora.read(folder).check(base, "it")


@pytest.mark.parametrize(("shape", "side"), [((3, 32), "A"), ((2, 31), "A"), ((33, 2), "B"), ((32, 3), "B")])
def test_a_wrong_shape_is_named(base, folder, shape, side):
    name = f"{PREFIX}model.layers.0.self_attn.q_proj.lora_{side}.weight"
    change_weights(folder, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    with pytest.raises(ModelError, match=r"A and B of layer 'model\.layers\.0\.self_attn\.q_proj' should be \(2, 32\)"):
        Lora.read(folder).check(base, "it")


def test_weights_that_are_no_numbers_are_refused(base, folder):
    change_weights(folder, lambda tensors: next(iter(tensors.values())).fill_(torch.nan))
    with pytest.raises(ModelError, match="has weights that are not finite"):
        Lora.read(folder).check(base, "it")


def test_files_that_cannot_be_read_are_one_sentence(folder):
    (folder / WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(StateError, match=r"adapter_model\.safetensors: can't be read"):
        Lora.read(folder)
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="the weights are a pickle"):
        Lora.read(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(StateError, match=r"adapter_config\.json: can't be read"):
        Lora.read(folder)

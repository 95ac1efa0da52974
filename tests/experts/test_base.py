"""The base of a library: the same under any LoRA, another one when a weight or a file differs."""

import pytest
import torch
from torch import nn

from everlearn.errors import ModelError
from everlearn.experts.base import WEIGHTS, Base
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.types import Task
from support.experts import shake
from support.tasks import classify_task, prompt_task, tag_task, tensor_task


def test_a_base_is_the_same_whatever_stands_on_it(llama, base, model):
    shake(model, 0)
    full = load_model(ModelConfig(str(llama), AdapterConfig("full")), [prompt_task(0)])
    narrow = load_model(ModelConfig(str(llama), AdapterConfig(rank=2, targets=["q_proj"])), [prompt_task(0)])
    for other in (model, full, narrow):
        assert Base.of(other) == base
    assert base.layers["model.layers.1.mlp.down_proj"] == (32, 48)
    assert "lm_head" not in base.layers
    assert len(base.layers) == 14


def test_a_classifiers_head_is_no_layer_of_the_base(bert):
    found = Base.of(load_model(ModelConfig(str(bert)), [tag_task(0)]))
    assert (found.kind, found.head) == ("tag", "classifier")
    assert "classifier" not in found.layers
    assert found.layers["bert.encoder.layer.0.attention.self.query"] == (32, 32)
    assert Base.from_json({**vars(found), "layers": {k: list(v) for k, v in found.layers.items()}}) == found


def test_a_base_whose_files_lack_weights_is_refused(bert):
    model = load_model(ModelConfig(str(bert)), [classify_task(0)])
    with pytest.raises(ModelError, match=r"its files lack weights .*Got \['bert\.pooler\.dense\.bias'"):
        Base.of(model)


class Net(nn.Module):
    """A module that no file holds."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.outer = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.inner(x).relu())


def test_a_network_without_files_is_known_by_its_weights():
    task: Task = tensor_task(0, labelled=False)

    def base_of(seed: int, name: str) -> Base:
        model = load_model(Net(seed), [task])
        if name == "lora":
            model.adapters.do("lora", rank=2, alpha=4.0, dropout=0.0, targets=["inner"], seed=0, task_type=None)
            shake(model, 3)
        return Base.of(model)

    first, same, other = base_of(0, "lora"), base_of(0, "lora"), base_of(1, "lora")
    assert first.fingerprint.keys() == {WEIGHTS}
    assert first == same
    with pytest.raises(ModelError, match="here: belongs to another base model than 'module'"):
        first.check_same(other, "here")
    with pytest.raises(ModelError, match="no part of the model stays as it is"):
        base_of(0, "full")

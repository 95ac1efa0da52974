import pytest
import torch

from everlearn.errors import ConfigError, ModelError
from everlearn.learners.meta.config import MetaConfig
from everlearn.learners.meta.parts import adapted_names, check_model
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.models.neuromodulated import neuromodulated
from everlearn.models.plain import mlp
from support.tasks import classify_task, prompt_task, regression_task


def plain(network):
    return load_model(network, [regression_task(0)])


def test_maml_adapts_all():
    assert adapted_names(plain(mlp(4, 1)), MetaConfig()) is None


def test_oml_adapts_the_last_linear_map():
    assert adapted_names(plain(mlp(4, 1, (8,))), MetaConfig(algorithm="oml")) == ["3.weight", "3.bias"]


def test_oml_adapts_the_last_blocks_adapters(llama):
    model = load_model(ModelConfig(str(llama), AdapterConfig("lora", rank=2)), [prompt_task(0)])
    chosen = adapted_names(model, MetaConfig(algorithm="oml"))
    assert chosen
    assert all(".layers.1." in name for name in chosen)
    assert any(".layers.0." in name for name in model.adapters.trainable())


def test_anml_adapts_all_but_the_gate():
    chosen = adapted_names(plain(neuromodulated(4, 1, (8,), (8,))), MetaConfig(algorithm="anml"))
    assert {name.split(".")[0] for name in chosen} == {"body", "head"}
    with pytest.raises(ConfigError, match="ANML needs a module named gate"):
        adapted_names(plain(mlp(4, 1)), MetaConfig(algorithm="anml"))


def test_names_can_be_chosen():
    assert adapted_names(plain(mlp(4, 1, (8,))), MetaConfig(adapted=["1.bias"])) == ["1.bias"]
    with pytest.raises(ConfigError, match=r"learner\.adapted"):
        adapted_names(plain(mlp(4, 1)), MetaConfig(adapted=["nothing"]))


def test_a_network_of_one_layer_has_no_prediction_part():
    with pytest.raises(ConfigError, match=r"learner\.adapted"):
        adapted_names(plain(torch.nn.Linear(4, 1)), MetaConfig(algorithm="oml"))


def test_models_that_carry_something_from_task_to_task_are_refused(bert):
    with pytest.raises(ModelError, match="new head"):
        check_model(load_model(ModelConfig(str(bert)), [classify_task(0)]))
    with pytest.raises(ModelError, match=r"keeps statistics over tasks\. Got 'BatchNorm1d'"):
        check_model(plain(torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))))

"""What can't work on parts of weights is refused; two processes that do are in test_two_processes.py."""

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.registry import find, names
from everlearn.shards import full, gathered, is_sharded, laid_out, whole
from everlearn.strategies.replay import Replay
from support.policy import letters_task

TRAITS = ("causal", "full", "rollouts", "sharded")
WITHOUT_WEIGHTS = {"replay", "joint", "cumulative", "none"}


@pytest.mark.parametrize("name", sorted(set(names("strategy")) - WITHOUT_WEIGHTS))
def test_methods_that_work_on_whole_weights_are_refused(name):
    with pytest.raises(ConfigError, match=f"strategy '{name}': works on whole weights.*Write fsdp: false, or leave"):
        find("strategy", name)().check_model(TRAITS)


@pytest.mark.parametrize("name", sorted(WITHOUT_WEIGHTS))
def test_methods_that_work_on_rows_are_not(name):
    find("strategy", name)().check_model(TRAITS)


@pytest.mark.parametrize("options", [{"selection": "herding", "capacity": 4}, {"weigh_by_forgetting": True}])
def test_replay_that_asks_the_model_is_refused(options):
    with pytest.raises(ConfigError, match=r"replay.selection: rows are weighed by whole weights"):
        Replay(**options).check_model(TRAITS)
    Replay(**options).check_model(TRAITS[:-1])


def test_an_adapter_is_not_sharded(llama):
    model = load_model(ModelConfig(str(llama), AdapterConfig("lora")), [letters_task()], 0)
    with pytest.raises(ConfigError, match=r"fsdp: needs a language model all of whose weights are trained. Got 'lora'"):
        model.adapters.shard(torch.device("cpu"))


def test_what_is_whole_stays_as_it_is():
    network, values = torch.nn.Linear(2, 3), torch.ones(3, 2)
    with whole(network):
        assert not is_sharded(network)
    assert full(network.weight) is network.weight
    assert laid_out(values, network.weight) is values
    assert gathered({"a": [values, 1]})["a"][0] is values

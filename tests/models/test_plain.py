import pytest
import torch
from torch import nn

from everlearn.errors import ConfigError
from everlearn.models.plain import build_plain, mlp
from support.tasks import regression_task, tensor_task


def test_the_mlp_is_sized_by_the_data():
    tasks = [tensor_task(0), tensor_task(1)]
    network = build_plain("mlp", {"hidden": [7, 5]}, tasks, "task", 0)
    linear = [(m.in_features, m.out_features) for m in network if isinstance(m, nn.Linear)]
    assert linear == [(6, 7), (7, 5), (5, 4)]
    unlabelled = [tensor_task(number, labelled=False) for number in range(2)]
    assert build_plain("mlp", {"hidden": []}, unlabelled, "task", 0)[-1].out_features == 2
    assert build_plain("mlp", {"hidden": [3]}, [regression_task(0)], "task", 0)[-1].out_features == 1


def test_inputs_are_flattened_and_dropout_stands_behind_each_layer():
    network = mlp(4, 2, hidden=(3, 3), dropout=0.5)
    assert network(torch.zeros(5, 2, 2)).shape == (5, 2)
    assert sum(isinstance(m, nn.Dropout) for m in network) == 2


def test_weights_are_seeded_and_the_global_generator_stays():
    tasks, state = [tensor_task(0)], torch.get_rng_state()
    first, second, other = (build_plain("mlp", {"hidden": [4]}, tasks, "task", seed)[1].weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_any_function_can_build_it(tmp_path, monkeypatch):
    source = "from torch import nn\n\ndef wide(n_outputs, width):\n    return nn.Linear(width, n_outputs)\n"
    (tmp_path / "my_networks.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    network = build_plain("my_networks:wide", {"width": 6}, [tensor_task(0)], "task", 0)
    assert (network.in_features, network.out_features) == (6, 2)
    with pytest.raises(ConfigError, match=r"model\.options: .*no such option. Got 'widht'. Did you mean 'width'"):
        build_plain("my_networks:wide", {"widht": 6}, [tensor_task(0)], "task", 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlpp", {}, "Did you mean 'mlp'"),
        ("no_such_module:build", {}, "can't be imported"),
        ("mlp", {"hiden": [3]}, "Did you mean 'hidden'"),
        ("mlp", {"hidden": [0]}, r"model\.options\.hidden\[0\]"),
    ],
)
def test_what_can_not_be_built(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_plain(name, options, [tensor_task(0)], "task", 0)

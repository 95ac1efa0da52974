import pytest
import torch
from torch import nn

from everlearn.models.adapters import Adapters
from everlearn.models.gates import GatedLayer, gated_layers, gates_of
from everlearn.models.load import AdapterConfig
from support.runs import make_bench


def mlp() -> Adapters:
    torch.manual_seed(0)
    adapters = Adapters(
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    )
    adapters.do("full")
    return adapters


def test_units_of_an_mlp_are_multiplied_softly_in_training_and_by_0_or_1_otherwise():
    adapters, x = mlp(), torch.randn(3, 6)
    adapters.do("open_gates", number=0, seed=0, sharpness=3.0)
    network, (first, second) = adapters.network, gates_of(adapters.network).values()

    def units(gate, training):
        return torch.sigmoid(3 * gate.embedding) if training else (gate.embedding > 0).float()

    for training in (True, False):
        network.train(training)
        hidden = torch.relu(x @ network[0].weight.T + network[0].bias) * units(first, training)
        hidden = torch.relu(hidden @ network[2].weight.T) * units(second, training)
        torch.testing.assert_close(network(x), hidden @ network[4].weight.T + network[4].bias)
    first.chosen, second.chosen = torch.zeros(5), torch.zeros(4)
    assert torch.equal(network(x), network[4].bias.expand(3, 2))


def test_a_lora_s_inner_numbers_are_multiplied(llama, bert):
    run = make_bench("causal_lora", llama, bert).run()
    adapters = run.model.adapters
    adapters.do("open_gates", number=0, seed=0, sharpness=1.0)
    network = adapters.network.eval()
    down, up, *_ = gated_layers(adapters)
    names = dict(network.named_parameters())
    layer = network.get_submodule(down.weight.partition(".lora_A")[0])
    with torch.no_grad():
        names[up.weight].normal_()
        x = torch.randn(2, layer.in_features)
        units = (gates_of(network)[up.inputs].embedding > 0).float()
        added = (x @ names[down.weight].T * units) @ names[up.weight].T * layer.scaling["default"]
        torch.testing.assert_close(layer(x), layer.base_layer(x) + added)
    assert 0 < units.sum() < len(units)


def test_layers_are_listed_with_the_gates_on_both_sides():
    adapters = mlp()
    adapters.do("open_gates", number=0, seed=0, sharpness=1.0)
    assert gated_layers(adapters) == [
        GatedLayer("0.weight", "0.bias", "2.gate", None),
        GatedLayer("2.weight", None, "4.gate", "2.gate"),
        GatedLayer("4.weight", "4.bias", None, "4.gate"),
    ]
    assert all(layer.weight in dict(adapters.network.named_parameters()) for layer in gated_layers(adapters))


def test_each_opening_draws_anew_and_leaves_the_global_generator_alone():
    def drawn(*numbers):
        adapters = mlp()
        state = torch.get_rng_state()
        for number in numbers:
            adapters.do("open_gates", number=number, seed=0, sharpness=1.0)
        assert torch.equal(state, torch.get_rng_state())
        assert len(gates_of(adapters.network)) == 2
        return torch.cat([gate.embedding for gate in gates_of(adapters.network).values()])

    assert torch.equal(drawn(0, 1), drawn(1))
    assert not torch.equal(drawn(0), drawn(1))


def test_lora_on_a_plain_module_is_gated_inside_the_lora(llama, bert):
    bench = make_bench("plain", llama, bert)
    adapters = bench.run().model.adapters
    adapters = Adapters(adapters.network)
    config = AdapterConfig("lora", rank=2)
    adapters.do("lora", rank=config.rank, alpha=4.0, dropout=0.0, targets="auto", seed=0, task_type=None)
    adapters.do("open_gates", number=0, seed=0, sharpness=1.0)
    assert [len(gate.embedding) for gate in gates_of(adapters.network).values()] == [2, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_pass(dtype):
    adapters = mlp()
    adapters.do("open_gates", number=0, seed=0, sharpness=1.0)
    network = adapters.network.to(dtype)
    assert network(torch.randn(3, 6, dtype=dtype)).dtype is dtype

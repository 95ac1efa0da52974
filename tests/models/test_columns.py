import pytest
import torch
from torch import nn

from everlearn.models.columns import ProgressiveMLP, activate, add_column, begin_columns
from everlearn.models.lora import lora_layers
from support.runs import make_bench


def test_an_mlp_s_columns_follow_the_formula():
    torch.manual_seed(0)
    network = ProgressiveMLP(nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)))
    network.add(lateral=True)
    network.add(lateral=True)
    x = torch.randn(3, 2, 3)

    def affine(layer, inputs):
        return inputs @ layer.weight.T + (0 if layer.bias is None else layer.bias)

    hidden = [torch.tanh(affine(column[1], x.flatten(1))) for column in network.columns]
    for number in range(3):
        activate(network, number)
        wanted = affine(network.columns[number][3], hidden[number])
        if number:
            (lateral,) = network.laterals[number - 1]
            heard = torch.cat([lateral.scale[j] * hidden[j] for j in range(number)], dim=1)
            wanted = wanted + affine(lateral.spread, torch.relu(affine(lateral.squeeze, heard)))
        torch.testing.assert_close(network(x), wanted, rtol=1e-5, atol=1e-6)


def test_a_deep_mlp_feeds_every_layer_but_the_first():
    network = ProgressiveMLP(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)))
    network.add(lateral=True)
    network(torch.randn(3, 6)).sum().backward()
    assert [(lateral.squeeze.in_features, lateral.spread.out_features) for lateral in network.laterals[0]] == [
        (5, 4),
        (4, 2),
    ]
    assert all(p.grad is not None for p in network.laterals.parameters())


@pytest.mark.parametrize("lateral", [True, False])
def test_lora_columns_follow_the_formula(lateral, llama, bert):
    run = make_bench("causal_lora", llama, bert).run()
    adapters = run.model.adapters
    begin_columns(adapters)
    for number in (1, 2):
        add_column(adapters, number=number, seed=0, lateral=lateral)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in adapters.trainable().values():
            p.copy_(torch.randn(p.shape, generator=generator))
    layer = next(iter(lora_layers(adapters.network).values()))
    x = torch.randn(2, 3, layer.in_features, generator=generator)
    columns = layer.columns
    pairs = [(layer.lora_A["default"].weight, layer.lora_B["default"].weight)]
    pairs += zip(columns.down, columns.up, strict=True)
    for active in range(3):
        activate(adapters.network, active)
        gates = [1.0] if active == 0 else [*(columns.gates[active - 1] if lateral else [0.0] * active), 1.0]
        wanted = layer.base_layer(x)
        for gate, (down, up) in zip(gates, pairs, strict=False):
            wanted = wanted + layer.scaling["default"] * gate * (x @ down.T @ up.T)
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["causal_lora", "plain"])
def test_a_column_s_weights_depend_on_its_number_and_the_seed_alone(kind, llama, bert):
    def drawn(number, seed):
        torch.rand(1)  # the global generator has no say
        adapters = make_bench(kind, llama, bert).run().model.adapters
        adapters.do("begin_columns")
        before = {id(p) for p in adapters.network.parameters()}
        adapters.do("add_column", number=number, seed=seed, lateral=True)
        return torch.cat([p.flatten() for p in adapters.network.parameters() if id(p) not in before])

    state = torch.get_rng_state()
    first = drawn(1, 0)
    torch.set_rng_state(state)
    assert torch.equal(first, drawn(1, 0))
    assert not torch.equal(first, drawn(2, 0))
    assert not torch.equal(first, drawn(1, 1))

"""The squared form is tested through the Fisher (test_fisher.py); here the absolute one."""

import pytest
import torch
from torch import nn

from everlearn.functional.per_example import add_row_gradients, linear_layers
from support.models import Twice


class Mixing(nn.Module):
    """A layer that sees all rows' positions in one dimension."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x.flatten(0, 1)).view(len(x), -1, 3).mean(1)


def summed(network, x, layers):
    parameters = dict(network.named_parameters())
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    add_row_gradients(
        parameters, layers, {"x": x}, lambda batch, rows: [network(batch["x"]).square().sum()], 1, sums
    )  # fmt: skip
    return sums


@pytest.mark.parametrize("make", [Twice, Mixing, lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, 3))])
def test_absolute_gradients_by_hooks_equal_those_row_by_row(make):
    torch.manual_seed(0)
    network, x = make(), torch.randn(6, 4, 5)
    layers = linear_layers(network, dict(network.named_parameters()))
    assert layers is not None
    by_hooks, by_row = summed(network, x, layers), summed(network, x, None)
    for name, value in by_row.items():
        assert value.sum() > 0
        torch.testing.assert_close(by_hooks[name], value, rtol=1e-4, atol=1e-6)
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_rows_of_opposite_gradients_do_not_cancel():
    network = nn.Linear(2, 1, bias=False)
    sums = {"weight": torch.zeros(1, 2)}
    parameters = dict(network.named_parameters())
    add_row_gradients(
        parameters, linear_layers(network, parameters), {"x": torch.tensor([[1.0, 2.0], [-1.0, -2.0]])},
        lambda batch, rows: [network(batch["x"]).sum()], 1, sums,
    )  # fmt: skip
    torch.testing.assert_close(sums["weight"], torch.tensor([[2.0, 4.0]]))


def test_layers_are_found_only_where_linear_ones_hold_all_parameters():
    network = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3))
    parameters = dict(network.named_parameters())
    assert linear_layers(network, parameters) is None
    some = {name: p for name, p in parameters.items() if name.startswith("1.")}
    assert linear_layers(network, some) == {network[1]: {"weight": "1.weight", "bias": "1.bias"}}

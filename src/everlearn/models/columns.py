"""Progressive columns: new layers for each task beside frozen ones, fed by these through lateral connections."""

import copy

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional as F

from everlearn.models.adapters import Adapters, is_peft
from everlearn.models.isolation import linear_chain
from everlearn.models.lora import lora_layers
from everlearn.registry import register
from everlearn.seeds import seed_for


class Lateral(nn.Module):
    """What a layer takes from the columns before: U relu(V [a_1 h_1, a_2 h_2, ...]), h_j the input of their layer."""

    def __init__(self, n_columns: int, n_inputs: int, n_outputs: int):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(n_columns).uniform_(0.01, 0.1))
        self.squeeze = nn.Linear(n_columns * n_inputs, n_inputs)
        self.spread = nn.Linear(n_inputs, n_outputs, bias=False)

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        scaled = [tensor * scale for tensor, scale in zip(inputs, self.scale.unbind(), strict=True)]
        return self.spread(torch.relu(self.squeeze(torch.cat(scaled, dim=-1))))


class ProgressiveMLP(nn.Module):
    """Copies of one MLP, a column for each task. `active` is the column that answers."""

    def __init__(self, first: nn.Sequential):
        super().__init__()
        self.laterals = nn.ModuleList()  # of each later column: one for each linear map but the first
        self.columns = nn.ModuleList([first])
        self.active = 0

    def add(self, lateral: bool) -> None:
        """Add a column with new weights; `lateral`: fed by the columns before."""
        column, n = copy.deepcopy(self.columns[0]).requires_grad_(True), len(self.columns)
        for layer in linear_chain(column):
            layer.reset_parameters()
        later = linear_chain(column)[1:] if lateral else []
        laterals = nn.ModuleList(Lateral(n, layer.in_features, layer.out_features) for layer in later)
        self.laterals.append(laterals.to(linear_chain(column)[0].weight))
        self.columns.append(column)
        self.active = n

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the active column's output; the columns before it compute what feeds it."""
        features = [x] * (self.active + 1)
        place = 0
        for layers in zip(*list(self.columns)[: self.active + 1], strict=True):
            inputs, linear = features, type(layers[0]) is nn.Linear
            features = [layer(tensor) for layer, tensor in zip(layers, inputs, strict=True)]
            for number in range(1, self.active + 1) if linear and place > 0 else ():
                if self.laterals[number - 1]:
                    features[number] = features[number] + self.laterals[number - 1][place - 1](inputs[:number])
            place += linear
        return features[-1]


class LoraColumns(nn.Module):
    """The LoRAs of later tasks beside a peft layer's own, which is column 0. `active` is the column that answers.

    Column k adds scale * (B_k A_k x + sum_j g_kj B_j A_j x) over the columns j before it; g_k are learned, from 0.
    """

    def __init__(self, layer: LoraLayer):
        super().__init__()
        self.down, self.up, self.gates = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        self.active = 0
        self.lateral = True
        layer.lora_B["default"].register_forward_pre_hook(self._gate_first)
        layer.register_forward_hook(self._add)

    def add(self, layer: LoraLayer, lateral: bool) -> None:
        """Add a column that adds nothing yet; without `lateral` it never hears of the columns before."""
        first_down, first_up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        down = torch.empty_like(first_down)
        nn.init.kaiming_uniform_(down, a=5**0.5)  # as peft does
        self.down.append(nn.Parameter(down))
        self.up.append(nn.Parameter(torch.zeros_like(first_up)))
        if lateral:
            self.gates.append(nn.Parameter(first_down.new_zeros(len(self.down))))  # column 0 is the peft layer's own
        self.active, self.lateral = len(self.down), lateral

    def _gate_first(self, module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        if self.active == 0:
            return None
        gate = self.gates[self.active - 1][0].to(inputs[0].dtype) if self.lateral else 0.0
        return (inputs[0] * gate,)

    def _add(self, layer: LoraLayer, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor | None:
        if self.active == 0 or layer.disable_adapters:
            return None
        columns = slice(0 if self.lateral else self.active - 1, self.active)
        downs, ups = list(self.down)[columns], list(self.up)[columns]
        # the columns laid together: two products, however many there are
        hidden = F.linear(layer.lora_dropout["default"](inputs[0].to(downs[0].dtype)), torch.cat(downs))
        if len(downs) > 1:
            gates = self.gates[self.active - 1][1:]
            hidden = hidden * torch.cat([gates, gates.new_ones(1)]).repeat_interleave(len(downs[0]))
        added = F.linear(hidden, torch.cat(ups, dim=1)) * layer.scaling["default"]
        return output + added.to(output.dtype)


def activate(network: nn.Module, column: int) -> None:
    """Let a column answer, of those that `begin_columns` and `add_column` made."""
    for module in network.modules():
        if isinstance(module, LoraColumns | ProgressiveMLP):
            module.active = column


@register("operation", "begin_columns")
def begin_columns(adapters: Adapters) -> None:
    """Make room for columns; what is there is column 0.

    Raises:
        ModelError: if the network is neither a LoRA model nor an MLP.
    """
    if is_peft(adapters.network):
        for layer in lora_layers(adapters.network).values():
            layer.add_module("columns", LoraColumns(layer))
        return
    linear_chain(adapters.network)
    network = adapters.network
    adapters.network = ProgressiveMLP(network if isinstance(network, nn.Sequential) else nn.Sequential(network))


@register("operation", "add_column")
def add_column(adapters: Adapters, *, number: int, seed: int, lateral: bool) -> None:
    """Add column `number` and let it answer. The others are to be frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "column", number))
        if not is_peft(adapters.network):
            adapters.network.add(lateral)
            return
        for layer in lora_layers(adapters.network).values():
            layer.columns.add(layer, lateral)

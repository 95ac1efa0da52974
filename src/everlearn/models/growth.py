"""Growth: more hidden units for an MLP, more rank for a LoRA, put in so that the network answers as before."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from everlearn.errors import ModelError, check_number, describe
from everlearn.models.adapters import Adapters, is_peft
from everlearn.models.isolation import linear_chain
from everlearn.models.load import Model
from everlearn.models.lora import lora_layers
from everlearn.registry import register
from everlearn.seeds import seed_for


def add_capacity(model: Model | Adapters | nn.Module, new_neurons: int = 64, seed: int = 0) -> dict[str, torch.Size]:
    """Add hidden units to each hidden layer of an MLP, or as much rank to a LoRA; the function stays the same.

    New units read their inputs by weights drawn as the layer's own were, and are read by weights of 0. What the layers
    held keeps its place: a parameter that grew is the old one with rows and columns behind it. Parameters are replaced:
    make optimizers anew. In a run, methods that keep something for each weight follow the strategy `grow` only.

    Args:
        model: a Model or its Adapters, which log it so that a resumed run does it again; or a plain module.
        new_neurons: units for each hidden layer, or rank for each LoRA.

    Returns:
        {name of a parameter that grew: the shape it had}.

    Raises:
        ModelError: if the network is neither a LoRA model nor an MLP with a hidden layer.
        ConfigError: if `new_neurons` is below 1.
    """
    check_number("add_capacity: new_neurons", new_neurons, low=1)
    adapters = model.adapters if isinstance(model, Model) else model
    network = adapters.network if isinstance(adapters, Adapters) else adapters
    before = dict(network.named_parameters())
    if isinstance(adapters, Adapters):
        adapters.do("add_rank" if is_peft(network) else "add_neurons", n=new_neurons, seed=seed)
    elif is_peft(network):
        raise_rank(network, new_neurons, seed)
    else:
        widen(network, new_neurons, seed)
    after = dict(network.named_parameters())
    former = {name: p.shape for name, p in before.items() if after[name].shape != p.shape}
    frozen = [name for name in former if not before[name].requires_grad]
    if frozen and isinstance(adapters, Adapters):
        adapters.do("freeze", parameters=frozen)
    for name in frozen:
        after[name].requires_grad_(False)
    return former


@register("operation", "add_neurons")
def add_neurons(adapters: Adapters, *, n: int, seed: int) -> None:
    """Widen an MLP; what grew is trainable."""
    widen(adapters.network, n, seed)


@register("operation", "add_rank")
def add_rank(adapters: Adapters, *, n: int, seed: int) -> None:
    """Raise the rank of the LoRA in training; what grew is trainable."""
    raise_rank(adapters.network, n, seed)


@torch.no_grad()
def widen(network: nn.Module, n: int, seed: int) -> None:
    """Add `n` units to each hidden layer of an MLP, in place."""
    chain = linear_chain(network)
    _check_hidden(network, chain)
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "neurons", chain[0].out_features))
        for layer in chain:
            n_inputs, n_outputs = layer.in_features, layer.out_features
            wider = nn.Linear(
                n_inputs + n * (layer is not chain[0]),
                n_outputs + n * (layer is not chain[-1]),
                bias=layer.bias is not None,
            ).to(layer.weight)
            wider.weight[:n_outputs, :n_inputs] = layer.weight
            wider.weight[:n_outputs, n_inputs:] = 0
            layer.weight = wider.weight
            if layer.bias is not None:
                wider.bias[:n_outputs] = layer.bias
                layer.bias = wider.bias
            layer.in_features, layer.out_features = wider.in_features, wider.out_features


@torch.no_grad()
def raise_rank(network: PeftModel, n: int, seed: int) -> None:
    """Add `n` to the rank of the LoRA in training, in place: rows of A as peft draws them, columns of B of 0.

    The scale alpha / rank stays, so that alpha grows with the rank.
    """
    name = network.active_adapter
    config, layers = network.peft_config[name], lora_layers(network)
    if any(type(matrix[name]) is not nn.Linear for layer in layers.values() for matrix in (layer.lora_A, layer.lora_B)):
        way_out = "Grow before vectors are put behind its matrices"
        raise ModelError(describe("growth", "the LoRA's matrices are not plain ones", name, way_out))
    factor = (config.r + n) / config.r
    if config.use_rslora:  # its scale is alpha / sqrt(rank)
        factor = factor**0.5
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "rank", config.r))
        for layer in layers.values():
            down, up = layer.lora_A[name], layer.lora_B[name]
            rows = torch.empty(n, down.in_features)
            nn.init.kaiming_uniform_(rows, a=5**0.5)  # as peft does
            down.weight = nn.Parameter(torch.cat([down.weight, rows.to(down.weight)]))
            up.weight = nn.Parameter(torch.cat([up.weight, up.weight.new_zeros(up.out_features, n)], 1))
            down.out_features = up.in_features = layer.r[name] = layer.r[name] + n
            layer.lora_alpha[name] *= factor
    config.r, config.lora_alpha = config.r + n, config.lora_alpha * factor


def fit_state(
    state: Mapping[str, Any],
    former: Mapping[str, torch.Size],
    weights: Mapping[str, torch.Tensor],
    copies: Sequence[str] = (),
) -> None:
    """Let what a strategy keeps follow weights that grew: tensors under a weight's name take its new shape, in place.

    Args:
        state: {field: value}, of which those of the form {name of a weight: tensor} are fitted.
        former: the shapes before. weights: {name: weight} as it is now.
        copies: fields whose new entries take the weight's value; in others (importances, sums) they are 0.

    Raises:
        ModelError: if something is kept for a weight in another shape than the weight's.
    """
    for field, kept in state.items():
        for name in kept.keys() & former.keys() if isinstance(kept, dict) else ():
            if not isinstance(kept[name], torch.Tensor) or kept[name].shape != former[name]:
                way_out = "Leave one of the two out"
                raise ModelError(describe("growth", f"{field} can't follow a weight that grows", name, way_out))
            wider = weights[name].detach().to(kept[name], copy=True)
            if field not in copies:
                wider.zero_()
            wider[tuple(slice(n) for n in former[name])] = kept[name]
            kept[name] = wider


def _check_hidden(network: nn.Module, chain: Sequence[nn.Linear]) -> None:
    """Raise ModelError unless there are hidden layers, and nothing between them in which units see each other."""
    if len(chain) < 2:
        way_out = "Use an MLP with a hidden layer, or LoRA"
        raise ModelError(describe("growth", "the network has no hidden layer", type(network).__name__, way_out))
    layers = list(network)
    width = 0
    for layer in layers[layers.index(chain[0]) : layers.index(chain[-1])]:
        if type(layer) is nn.Linear:
            width = layer.out_features
        elif not _keeps_units_apart(layer, width):
            way_out = "Put only activations and dropout between linear layers"
            raise ModelError(describe("growth", "a layer can't take more units", type(layer).__name__, way_out))


def _keeps_units_apart(layer: nn.Module, width: int) -> bool:
    """Tell whether a layer takes one unit more, and does to the others what it did without."""
    if any(True for _ in layer.buffers()):
        return False
    layer = copy.deepcopy(layer).eval()
    inputs = torch.stack([torch.linspace(-2, 2, width + 1), torch.linspace(1, -1, width + 1)])
    try:
        more, less = layer(inputs), layer(inputs[:, :-1])
    except (RuntimeError, ValueError):  # it is made for one width
        return False
    return more.shape == inputs.shape and torch.allclose(more[:, :-1], less, atol=1e-6)

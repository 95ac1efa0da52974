"""Sums over a batch's rows of each row's own gradient, squared or in absolute value."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Batch = dict[str, torch.Tensor]
Scalars = Callable[[Batch, list[int]], list[torch.Tensor]]


def add_row_gradients(
    parameters: dict[str, nn.Parameter],
    layers: dict[nn.Linear, dict[str, str]] | None,
    batch: Batch,
    scalars: Scalars,
    power: int,
    sums: dict[str, torch.Tensor],
) -> None:
    """Add to `sums`, for each row of the batch and each of its scalars, |d scalar / d w|^power.

    Args:
        parameters: {name: trainable parameter}.
        layers: what `linear_layers` returned.
        batch: first dimension of each tensor = rows.
        scalars: (batch, indices of its rows) -> scalars, each a sum of one term per row.
        power: 2 or 1.
        sums: {name: float32, shape of the parameter}.

    Cost: with `layers`, one forward pass and a backward pass a scalar; else, or where a layer mixes rows, as much for
    each single row.
    """
    n_rows = len(next(iter(batch.values())))
    if layers is not None and _by_hooks(parameters, layers, batch, n_rows, scalars, power, sums):
        return
    for row in range(n_rows):
        single = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        _by_row(parameters, single, row, scalars, power, sums)


def linear_layers(network: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[nn.Linear, dict[str, str]] | None:
    """Return {layer: {"weight" or "bias": name}} if linear layers hold all the parameters, each once; else None."""
    name_of = {id(p): name for name, p in parameters.items()}
    layers: dict[nn.Linear, dict[str, str]] = {}
    found = []
    for layer in network.modules():
        held = {kind: name_of[id(p)] for kind, p in layer.named_parameters(recurse=False) if id(p) in name_of}
        found += held.values()
        if held and type(layer) is not nn.Linear:
            return None
        if held:
            layers[layer] = held
    return layers if sorted(found) == sorted(parameters) else None


def _by_hooks(
    parameters: dict[str, nn.Parameter],
    layers: dict[nn.Linear, dict[str, str]],
    batch: Batch,
    n_rows: int,
    scalars: Scalars,
    power: int,
    sums: dict[str, torch.Tensor],
) -> bool:
    """Get per-row gradients from each layer's input and output gradient. False if a layer mixes the rows.

    The weights themselves need no gradient meanwhile, which saves their share of the backward pass.
    """
    tap = Tap(layers)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            found = scalars(batch, list(range(n_rows)))
            if not all(has_rows(inputs, batch) for inputs, _ in tap.calls):
                return False
            for i, scalar in enumerate(found):
                scalar.backward(retain_graph=i < len(found) - 1)
                tap.add_to(sums, power)
    finally:
        tap.close()
        for parameter in parameters.values():
            parameter.requires_grad_(True)
    return True


def has_rows(inputs: torch.Tensor, batch: Batch) -> bool:
    """Tell whether the first dimension of a layer's inputs is that of the batch, its rows.

    Where every token may be a target a layer of [n, width] reads tokens end to end, were there as many as rows.
    """
    if "labels" in batch and "input_ids" in batch and batch["labels"].shape == batch["input_ids"].shape:
        return inputs.ndim > 2 and len(inputs) == len(batch["labels"])
    return len(inputs) == len(next(iter(batch.values())))


class Tap:
    """Watches linear layers: their inputs in the forward pass, the gradients of their outputs in the backward pass."""

    def __init__(self, layers: dict[nn.Linear, dict[str, str]]):
        self.layers = layers
        self.calls: list[tuple[torch.Tensor, nn.Linear]] = []
        self.output_grads: dict[int, torch.Tensor] = {}
        self._handles = [layer.register_forward_hook(self._watch) for layer in layers]

    def _watch(self, layer: nn.Linear, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        if not output.requires_grad:
            output = output.requires_grad_(True).clone()  # a copy: an in-place activation may follow
        number = len(self.calls)
        self.calls.append((inputs[0].detach(), layer))
        output.register_hook(lambda gradient: self.output_grads.__setitem__(number, gradient))
        return output

    def add_to(self, sums: dict[str, torch.Tensor], power: int) -> None:
        """Add what the backward pass that just ended brought. A layer called twice adds its gradients up first."""
        calls_of: dict[nn.Linear, list[int]] = {}
        for number, (_, layer) in enumerate(self.calls):
            if number in self.output_grads:
                calls_of.setdefault(layer, []).append(number)
        for layer, numbers in calls_of.items():
            names = self.layers[layer]
            pairs = [(self.calls[n][0].float(), self.output_grads[n].float()) for n in numbers]
            if "weight" in names:
                sums[names["weight"]].add_(_weight_gradients(pairs, power))
            if "bias" in names:
                per_row = sum(g.flatten(1, -2).sum(1) if g.ndim > 2 else g for _, g in pairs)
                sums[names["bias"]].add_(_raised(per_row, power).sum(0))
        self.output_grads.clear()

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()


def _raised(tensor: torch.Tensor, power: int) -> torch.Tensor:
    return tensor.square() if power == 2 else tensor.abs()


def _weight_gradients(pairs: list[tuple[torch.Tensor, torch.Tensor]], power: int) -> torch.Tensor:
    """Sum over rows of |sum over calls and positions of gradient x input|^power: [out, in]."""
    if len(pairs) == 1 and pairs[0][0].ndim == 2:
        inputs, gradients = pairs[0]
        return _raised(gradients, power).T @ _raised(inputs, power)  # a row's gradient is one outer product
    per_row = sum(
        torch.bmm(g.reshape(g.shape[0], -1, g.shape[-1]).transpose(1, 2), a.reshape(a.shape[0], -1, a.shape[-1]))
        for a, g in pairs
    )
    return (per_row.square_() if power == 2 else per_row.abs_()).sum(0)


def _by_row(
    parameters: dict[str, nn.Parameter],
    single: Batch,
    row: int,
    scalars: Scalars,
    power: int,
    sums: dict[str, torch.Tensor],
) -> None:
    with torch.enable_grad():
        found = scalars(single, [row])
        for i, scalar in enumerate(found):
            gradients = torch.autograd.grad(
                scalar, list(parameters.values()), retain_graph=i < len(found) - 1, allow_unused=True
            )
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is None:
                    continue
                if power == 2:
                    sums[name].addcmul_(gradient.float(), gradient.float())
                else:
                    sums[name].add_(gradient.float().abs())

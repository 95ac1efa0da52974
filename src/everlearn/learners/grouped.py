"""Gradients of several groups of rows at once: of each earlier task's memory, or of every single row."""

from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import nn

from everlearn.functional.per_example import Tap, has_rows, linear_layers
from everlearn.learners.gradients import at_loss_scale
from everlearn.models.objectives import Batch, to_device
from everlearn.types import Outputs

if TYPE_CHECKING:
    from everlearn.way import Run

Score = Callable[[Outputs], torch.Tensor]  # outputs -> the value of each item [n_items]
Total = Callable[[Batch], torch.Tensor]  # rows -> the sum of their scores, scaled


def grouped_gradients(
    run: "Run", parameters: dict[str, nn.Parameter], batch: Batch, groups: list[int], n_groups: int, score: Score
) -> torch.Tensor:
    """Return the gradient of the sum of `score` over each group's items, a line for each group: [n_groups, n_weights].

    Each line holds the parameters' gradients laid end to end, float32. Gradients, flags and mode stay as they are.

    Args:
        parameters: {name: trainable parameter}, in the order in which they stand in a line.
        batch: rows; those of one group stand together. It may be empty: all lines are then 0.
        groups: number of the group of each row.
        score: differentiable; an item's value may depend on its own row only.

    Cost: where linear layers hold all the parameters (LoRA is), one forward and one backward pass over the batch;
    else a pass for each group.
    """
    weights = list(parameters.values())
    lines = torch.empty(n_groups, sum(p.numel() for p in weights), device=weights[0].device)
    if not batch:
        return lines.zero_()
    spans, start = {}, 0
    for group, rows in groupby(groups):
        spans[group] = (start, start := start + len(list(rows)))
    batch = to_device(batch, run.accelerator.device)
    layers = linear_layers(run.model.network, parameters)

    def compute(scale: float) -> list[torch.Tensor]:
        def total(part: Batch) -> torch.Tensor:
            with run.accelerator.autocast():
                return score(run.model.objective.forward(run.model.network, part)).sum() * scale

        if layers is None or not _by_layers(run, layers, parameters, batch, spans, total, lines):
            _by_group(weights, batch, spans, total, lines)
        return [lines]

    at_loss_scale(run, compute)
    return lines


def _by_layers(
    run: "Run",
    layers: dict[nn.Linear, dict[str, str]],
    parameters: dict[str, nn.Parameter],
    batch: Batch,
    spans: dict[int, tuple[int, int]],
    total_of: Total,
    lines: torch.Tensor,
) -> bool:
    """Fill the lines from each layer's input and output gradient. False if a layer mixes the rows.

    No weight needs a gradient meanwhile, which saves its share of the backward pass.
    """
    trainable = [p for p in run.model.network.parameters() if p.requires_grad]
    tap = Tap(layers)
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            total = total_of(batch)
            if not all(has_rows(inputs, batch) for inputs, _ in tap.calls):
                return False
            if total.requires_grad:
                total.backward()
    finally:
        tap.close()
        for parameter in trainable:
            parameter.requires_grad_(True)
    pieces = lines.split([p.numel() for p in parameters.values()], 1)
    for group in range(len(lines)):
        line = {name: piece[group] for name, piece in zip(parameters, pieces, strict=True)}
        _fill(line, tap, slice(*spans.get(group, (0, 0))))
    return True


def _fill(line: dict[str, torch.Tensor], tap: Tap, span: slice) -> None:
    """Write the gradients over a span of rows into the pieces of a line, which may hold anything before."""
    filled = set()
    for number, gradient in tap.output_grads.items():
        inputs, layer = tap.calls[number]
        g = gradient[span].reshape(-1, gradient.shape[-1]).float()
        for kind, name in tap.layers[layer].items():
            again = float(name in filled)  # with beta 0 what is there isn't even read
            filled.add(name)
            if kind == "weight":
                a = inputs[span].reshape(-1, inputs.shape[-1]).float()
                line[name].view_as(layer.weight).addmm_(g.T, a, beta=again)
            else:
                line[name].addmv_(g.T, g.new_ones(len(g)), beta=again)
    for name in line.keys() - filled:
        line[name].zero_()


def _by_group(
    weights: list[nn.Parameter],
    batch: Batch,
    spans: dict[int, tuple[int, int]],
    total_of: Total,
    lines: torch.Tensor,
) -> None:
    """Fill the lines by a pass for each group."""
    lines.zero_()
    for group, (start, stop) in spans.items():
        part = {name: tensor[start:stop] for name, tensor in batch.items()}
        with torch.enable_grad():
            total = total_of(part)
            if not total.requires_grad:
                continue
            gradients = torch.autograd.grad(total, weights, allow_unused=True)
        pieces = lines[group].split([p.numel() for p in weights])
        for piece, gradient in zip(pieces, gradients, strict=True):
            if gradient is not None:
                piece.copy_(gradient.flatten())

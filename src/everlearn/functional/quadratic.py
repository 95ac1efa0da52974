"""Quadratic penalties as gradients: no autograd graph, once a step, the same at any accumulation."""

import torch
from torch import nn


def add_quadratic_gradients(
    parameters: list[torch.Tensor], precision: list[torch.Tensor], pull: list[torch.Tensor], strength: float
) -> None:
    """Add to each `.grad` that of 1/2 * strength * sum_k F_k (w - w_k)^2, given F = sum F_k and pull = sum F_k w_k.

    A sum of quadratics is one quadratic: its gradient is strength * (F w - pull), however many tasks there were.

    Args:
        parameters: tensors that have a gradient; precision, pull: tensors of the same shapes.
    """
    change = torch._foreach_mul(precision, parameters)
    torch._foreach_sub_(change, pull)
    torch._foreach_add_([p.grad for p in parameters], change, alpha=strength)


@torch.no_grad()
def add_anchored_gradients(
    parameters: dict[str, nn.Parameter],
    anchors: dict[str, torch.Tensor],
    strength: float,
    precision: dict[str, torch.Tensor] | None = None,
) -> None:
    """Add to `.grad` that of 1/2 * strength * sum_i F_i (w_i - w*_i)^2: where all tasks pull to the same weights.

    Parameters without a gradient, and those that have no anchor or no F, are left alone.

    Args:
        parameters: {name: parameter}. anchors: {name: w*}. precision: {name: F}; None takes 1 everywhere.
    """
    known = anchors if precision is None else anchors.keys() & precision.keys()
    held = [name for name, p in parameters.items() if name in known and p.grad is not None]
    if not held or strength == 0:
        return
    follow(parameters[held[0]].device, anchors, precision or {})
    weights = [parameters[name] for name in held]
    change = torch._foreach_sub(weights, [anchors[name] for name in held])
    if precision is not None:
        torch._foreach_mul_(change, [precision[name] for name in held])
    torch._foreach_add_([p.grad for p in weights], change, alpha=strength)


def follow(device: torch.device, *kept: dict[str, torch.Tensor]) -> None:
    """Move learned tensors to the weights' device, in place: restored ones come on the CPU."""
    for tensors in kept:
        if tensors and next(iter(tensors.values())).device != device:
            tensors.update({name: tensor.to(device) for name, tensor in tensors.items()})

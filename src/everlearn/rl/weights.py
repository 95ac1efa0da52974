"""Weights of earlier policies: kept, put back as a teacher, compared."""

import torch

from everlearn.models.load import Model
from everlearn.models.lora import laid_back
from everlearn.shards import laid_out, part_of, summed


def snapshot(params: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """Return a copy of weights."""
    return {name: p.detach().clone() for name, p in params.items()}


def distance(params: dict[str, torch.nn.Parameter], before: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Return how far weights have come since `before`, and how large they were: 2-norms over all that it names."""
    kept = {name: part_of(laid_out(values, params[name])) for name, values in before.items()}
    with torch.no_grad():
        moved = sum((part_of(params[name]) - values).float().square().sum().item() for name, values in kept.items())
        size = sum(values.float().square().sum().item() for values in kept.values())
    moved, size = summed([moved, size], like=params.values())
    return moved**0.5, size**0.5


def reference_weights(model: Model, kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of an earlier policy as the model has them now, {name: value}; what came after it counts 0.

    That is a LoRA that is newer than it, and the rows and columns by which one has grown.

    Args:
        kept: the parameters that were trained then.
    """
    weights = laid_back(model.network, kept)
    for name, p in model.adapters.trainable().items():
        earlier = weights.get(name)
        if earlier is None or earlier.shape != p.shape:
            weights[name] = torch.zeros_like(p)
            if earlier is not None:
                weights[name][tuple(slice(n) for n in earlier.shape)] = earlier.to(p)
    return weights

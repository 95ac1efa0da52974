"""The trainable matrices of a network: weights of linear layers, for methods that look at a layer's inputs or rank."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from everlearn.models.adapters import Adapters


def trainable_matrices(adapters: Adapters, skipped: set[int] = frozenset()) -> dict[nn.Module, str]:
    """Return {layer: name of its weight} of all linear layers (`nn.Linear`, and the Conv1D of transformers).

    Left out are layers whose weight is frozen, or also an embedding's, or has its id in `skipped`.
    """
    names = {id(p): name for name, p in adapters.trainable().items()}
    left_out = {id(module.weight) for module in adapters.network.modules() if isinstance(module, nn.Embedding)}
    return {
        layer: names[id(layer.weight)]
        for layer in adapters.network.modules()
        if isinstance(layer, nn.Linear | Conv1D) and id(layer.weight) in names.keys() - left_out - skipped
    }


def class_parameters(adapters: Adapters) -> set[int]:
    """Return the ids of the parameters that map features to classes: the heads, or a plain module's last linear map."""
    if adapters.head is not None or (adapters.columns and adapters.mode == "full"):
        return adapters.output_parameters()
    return set()


def separate_heads(adapters: Adapters) -> set[int]:
    """Return the ids of the parameters of heads that belong to one task each, none where tasks share a head."""
    if adapters.head is not None and adapters.head_mode == "task":
        return {id(p) for p in adapters.head.parameters()}
    return set()


def as_rows(layer: nn.Module | None, matrix: torch.Tensor) -> torch.Tensor:
    """Return a weight, or a change of it, as [outputs, inputs]; Conv1D keeps it the other way round."""
    return matrix.T if isinstance(layer, Conv1D) else matrix

"""Classification heads that come as tasks come: one per task, or one shared head that grows with new labels."""

from collections.abc import Sequence

import torch
from torch import nn

from everlearn.errors import ModelError, describe


class GrowingHead(nn.Module):
    """Linear maps from features [..., in_features] to class logits, one block of classes added at a time.

    `active` lists the blocks that a forward pass computes, in that order; the others get no gradient at all, so that
    neither weight decay nor momentum moves them. Blocks are float32 whatever the backbone's precision, and have a bias
    only where the layer they stand for has one, so that they can be exported as that layer.
    """

    def __init__(self, in_features: int, device: torch.device | None = None, bias: bool = True):
        super().__init__()
        self.in_features = in_features
        self.device = device
        self.bias = bias
        self.blocks = nn.ModuleList()
        self.active: list[int] = []
        self._features: torch.Tensor | None = None

    def add_block(self, n_classes: int, std: float = 0.02) -> int:
        """Add a block of `n_classes` (weights normal with `std`, bias 0) and return its index."""
        block = nn.Linear(self.in_features, n_classes, bias=self.bias, device=self.device)
        nn.init.normal_(block.weight, std=std)
        if self.bias:
            nn.init.zeros_(block.bias)
        self.blocks.append(block)
        self.active = list(range(len(self.blocks)))
        return len(self.blocks) - 1

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits [..., sum of the active blocks' classes]."""
        self._features = features
        return torch.cat([self.block_logits(i) for i in self.active], dim=-1)

    def block_logits(self, index: int) -> torch.Tensor:
        """Return one block's logits for the features of the last forward pass, whether it is active or not."""
        return self.blocks[index](self._features.to(self.blocks[index].weight.dtype))


def install_head(network: nn.Module, n_labels: int) -> tuple[GrowingHead, nn.Linear]:
    """Replace the network's last linear map to `n_labels` classes by an empty GrowingHead.

    Returns:
        The new head, and the linear map that stood in its place.

    Raises:
        ModelError: if the network has no such layer.
    """
    found = [(name, layer) for name, layer in network.named_modules() if _maps_to(layer, n_labels)]
    if not found:
        way_out = "Use a sequence- or token-classification architecture with a linear output layer"
        raise ModelError(describe("model", "has no linear layer to its labels", n_labels, way_out))
    name, layer = found[-1]
    head = GrowingHead(layer.in_features, layer.weight.device, bias=layer.bias is not None)
    network.set_submodule(name, head)
    return head, layer


def column_mask(spans: Sequence[tuple[int, int]], n_columns: int) -> torch.Tensor:
    """Return a bool mask [len(spans), n_columns], true where a row may answer: start <= column < stop."""
    columns = torch.arange(n_columns)
    return torch.stack([(columns >= start) & (columns < stop) for start, stop in spans])


def _maps_to(layer: nn.Module, n_labels: int) -> bool:
    return isinstance(layer, nn.Linear) and layer.out_features == n_labels

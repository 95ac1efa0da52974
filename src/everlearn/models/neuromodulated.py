"""ANML's network: what one network reads from an input decides which features of another go on to the answer."""

from collections.abc import Sequence

import torch
from torch import nn

from everlearn.models.plain import mlp


class Neuromodulated(nn.Module):
    """y = head(body(x) * sigmoid(gate(x))).

    With the algorithm `anml` only body and head learn in the inner loop; the gate learns in the outer one. It thereby
    decides which features answer, and which weights have a gradient.

    Args:
        body: inputs -> features [batch, n_features]. gate: inputs -> [batch, n_features]. head: features -> outputs.

    Source: Beaulieu et al. 2020, arXiv 2002.09571, section 2.
    """

    def __init__(self, body: nn.Module, gate: nn.Module, head: nn.Module):
        super().__init__()
        self.body, self.gate, self.head = body, gate, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs [batch, ...] of inputs x [batch, ...]."""
        return self.head(self.body(x) * torch.sigmoid(self.gate(x)))


def neuromodulated(
    n_inputs: int, n_outputs: int, hidden: Sequence[int] = (100, 100), gate_hidden: Sequence[int] = (100, 100)
) -> Neuromodulated:
    """Return ReLU networks, gated: `hidden` gives the width of each layer of the body, whose last is the features.

    In a recipe: model: {name: "everlearn.models.neuromodulated:neuromodulated"}.

    Departs: layers are fully connected; the paper's are convolutions.
    """
    body = nn.Sequential(mlp(n_inputs, hidden[-1], hidden[:-1]), nn.ReLU())
    return Neuromodulated(body, mlp(n_inputs, hidden[-1], gate_hidden), nn.Linear(hidden[-1], n_outputs))

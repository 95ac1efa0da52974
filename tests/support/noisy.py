"""Plain modules as a user's own code may hold: with noise by Python and NumPy, with statistics of a batch."""

import random

import numpy
import torch
from torch import nn


class Noisy(nn.Module):
    """Two linear maps; in training, dropout by NumPy and a scale by Python."""

    def __init__(self, n_inputs: int, n_outputs: int):
        super().__init__()
        self.first, self.second = nn.Linear(n_inputs, 16), nn.Linear(16, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x.flatten(1)))
        if self.training:
            kept = torch.from_numpy(numpy.random.rand(*hidden.shape) > 0.2)
            hidden = hidden * kept * (0.5 + random.random())
        return self.second(hidden)


def build(n_inputs: int, n_outputs: int) -> Noisy:
    """Return the module; NumPy draws its first bias."""
    network = Noisy(n_inputs, n_outputs)
    with torch.no_grad():
        network.first.bias.copy_(torch.from_numpy(numpy.random.rand(16)))
    return network


def normed(n_inputs: int, n_outputs: int) -> nn.Module:
    """Return a network that normalises by the statistics of a batch."""
    return nn.Sequential(nn.Flatten(), nn.Linear(n_inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_outputs))

"""The bare loop that methods are timed against, here and in Avalanche's environment: PyTorch and nothing else."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader


class BareLoop:
    """Plain training of a twin, endlessly over its batches."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader, loss: Any):
        self.network, self.optimizer, self.loader, self.loss = network.train(), optimizer, batches, loss
        self.batches = iter(())

    def step(self) -> None:
        """Take one optimizer step."""
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        self.loss(self.network, batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

"""Meta-Experience Replay with an optimizer and deep copies, as its paper writes it."""

import copy

import torch
from torch import nn
from torch.nn import functional as F


def mer_by_hand(
    network: nn.Module,
    batches: list[list[tuple[torch.Tensor, torch.Tensor]]],
    rate: float,
    within: float,
    across: float,
) -> dict[str, torch.Tensor]:
    """Return the weights after one step of algorithm 1 of Riemer et al. 2019 on the mean squared error."""
    network = copy.deepcopy(network)
    before_all = copy.deepcopy(network.state_dict())
    for batch in batches:
        before = copy.deepcopy(network.state_dict())
        optimizer = torch.optim.SGD(network.parameters(), lr=rate)
        for x, y in batch:
            optimizer.zero_grad()
            F.mse_loss(network(x), y).backward()
            optimizer.step()
        after = network.state_dict()
        network.load_state_dict({name: before[name] + within * (after[name] - before[name]) for name in before})
    after = network.state_dict()
    return {name: before_all[name] + across * (after[name] - before_all[name]) for name in before_all}

"""Plain training of a one-hidden-layer ReLU network, written out with matrices."""

import torch
from torch.nn import functional as F

from everlearn.seeds import generator_for
from everlearn.types import Task


def sgd_losses(
    begin: dict[str, torch.Tensor], task: Task, seed: int, batch_size: int, learning_rate: float, clip: float
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return the loss of each step of one epoch and the weights after it; the two classes are columns 0 and 1."""
    values = {name: tensor.clone().requires_grad_() for name, tensor in begin.items()}
    w1, b1, w2, b2 = values.values()
    order = torch.randperm(len(task.train), generator=generator_for(seed, 0, task.name, 0, "order"))
    losses = []
    for rows in order.split(batch_size):
        hidden = (task.train.x[rows] @ w1.T + b1).clamp(min=0)
        loss = F.cross_entropy((hidden @ w2.T + b2)[:, :2], task.train.y[rows])
        gradients = torch.autograd.grad(loss, [w1, b1, w2, b2])
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        factor = learning_rate * min(1.0, clip / norm.item())
        with torch.no_grad():
            for value, gradient in zip((w1, b1, w2, b2), gradients, strict=True):
                value -= factor * gradient
        losses.append(loss.item())
    return losses, {name: value.detach() for name, value in values.items()}

"""The diagonal Fisher written out: one example, one class, one backward pass at a time."""

from collections.abc import Callable

import torch
from torch.nn import functional as F


def exact_fisher(
    parameters: dict[str, torch.Tensor], rows: list, logits_of: Callable[[object], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Sum over rows of sum_c p_c (d log p_c / d w)^2; `logits_of(row)` is [n_classes]."""
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for row in rows:
        log_p = F.log_softmax(logits_of(row), dim=-1)
        for c in range(len(log_p)):
            gradients = torch.autograd.grad(log_p[c], list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] += log_p[c].exp().item() * gradient**2
    return sums


def empirical_fisher(
    parameters: dict[str, torch.Tensor], rows: list, log_likelihood_of: Callable[[object], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Sum over rows of (d log p(y) / d w)^2; `log_likelihood_of(row)` is a scalar, the sum over the row's targets."""
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for row in rows:
        gradients = torch.autograd.grad(log_likelihood_of(row), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                sums[name] += gradient**2
    return sums

"""The losses of policy and value, a number for each token."""

import torch


def policy_losses(
    log_p: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip_low: float, clip_high: float
) -> torch.Tensor:
    """Return PPO's clipped loss of each token [n]: -min(r A, clip(r, 1 - low, 1 + high) A), r = p / p_old.

    Source: Schulman et al. 2017, arXiv 1707.06347, eq. 7; two bounds: Yu et al. 2025, arXiv 2503.14476 (DAPO).
    """
    ratio = (log_p - old).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def value_losses(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Return half the squared error of each value [n]; clipped, of the worse of it and of its old one moved by `clip`.

    Source: the clipping of PPO's first implementation (openai/baselines); Engstrom et al. 2020, arXiv 2005.12729.
    """
    losses = (values - returns).square()
    if clip is not None:
        losses = torch.maximum(losses, (old + (values - old).clamp(-clip, clip) - returns).square())
    return 0.5 * losses


def divergences(log_p: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return for each token [n] drawn from p an estimate of KL(p || reference): q/p - 1 - log(q/p), never negative.

    Source: Schulman 2020, Approximating KL Divergence, the estimator k3.
    """
    log_ratio = reference - log_p
    return log_ratio.exp() - 1 - log_ratio


def entropies(logits: torch.Tensor) -> torch.Tensor:
    """Return the entropy of each line of logits [n, vocabulary], nats [n]."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)

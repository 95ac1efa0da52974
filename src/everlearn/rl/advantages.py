"""How much better a response, or a token of it, was than was to be expected."""

import torch

GROUP, LEAVE_ONE_OUT, GAE = "group", "rloo", "gae"
ADVANTAGES = (GROUP, LEAVE_ONE_OUT, GAE)


def group_advantages(rewards: torch.Tensor, *, normalise: bool = True) -> torch.Tensor:
    """Return each response's reward less the mean of its group, by the group's standard deviation [n_prompts, n].

    0 where all responses of a group earn the same.

    Args:
        rewards: [n_prompts, n_responses].
        normalise: divide by the deviation; without, problems of middling difficulty weigh more (Dr. GRPO).
    Source: Shao et al. 2024, arXiv 2402.03300 (GRPO), section 4.1.2; Liu et al. 2025, arXiv 2503.20783 (Dr. GRPO).
    """
    centred = _centred(rewards)
    return centred / rewards.std(1, keepdim=True, correction=0).clamp(min=1e-6) if normalise else centred


def leave_one_out_advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Return each response's reward less the mean of the others to the same prompt [n_prompts, n_responses].

    0 where all responses of a group earn the same.

    Source: Ahmadian et al. 2024, arXiv 2402.14740 (RLOO).
    """
    n = rewards.shape[1]
    return _centred(rewards) * (n / max(1, n - 1))


def _centred(rewards: torch.Tensor) -> torch.Tensor:
    """Return rewards less their group's mean, exactly 0 where they are all the same: a mean is rounded."""
    same = rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True)
    return (rewards - rewards.mean(1, keepdim=True)).masked_fill(same, 0.0)


def generalised_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float = 1.0, lam: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the advantage and the return of each token [n, length]: GAE, an episode ending with its last token.

    delta_t = r_t + gamma V_{t+1} - V_t; A_t = delta_t + gamma lam A_{t+1}; return_t = A_t + V_t; V is 0 after the end.

    Args:
        rewards: of each token [n, length].
        values: of the state before each token [n, length].
        mask: bool [n, length]: the tokens of a response, which come first in its line.
    Source: Schulman et al. 2016, arXiv 1506.02438, eq. 16.
    """
    advantages, after, value_after = (
        torch.zeros_like(values),
        values.new_zeros(len(values)),
        values.new_zeros(len(values)),
    )
    for t in range(values.shape[1] - 1, -1, -1):
        there = mask[:, t].to(values.dtype)
        delta = rewards[:, t] + gamma * value_after - values[:, t]
        after = there * (delta + gamma * lam * after)
        value_after = there * values[:, t]
        advantages[:, t] = after
    return advantages, (advantages + values) * mask


def whiten(values: torch.Tensor, weights: torch.Tensor, total: torch.Tensor | None = None) -> torch.Tensor:
    """Return values with weighted mean 0 and deviation 1.

    Args:
        total: sums of (weights, weights * values, weights * values^2) over all processes; by default of these.
    """
    n, first, second = moments(values, weights) if total is None else total
    mean = first / n
    deviation = (second / n - mean**2).clamp(min=0).sqrt()
    return ((values - mean) / (deviation + 1e-8)).to(values.dtype)


def moments(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the sums of weights, of weights * values and of weights * values^2, float64 [3]."""
    values, weights = values.double(), weights.double()
    return torch.stack([weights.sum(), (weights * values).sum(), (weights * values**2).sum()])

"""Losses by hand, and beside the numbers of TRL's last PPO."""

import pytest
import torch

from everlearn.rl.losses import divergences, entropies, policy_losses, value_losses


def test_the_clipped_ratio_is_that_of_trl():
    """Ratios 1.25, 2/3, 1, 1.8, 0.25, 1.03: what TRL 0.20's lines give on them, with a range of 0.2."""
    log_p = torch.tensor([0.5, 0.2, 0.3, 0.9, 0.1, 0.4]).log()
    old = torch.tensor([0.4, 0.3, 0.3, 0.5, 0.4, 0.39]).log()
    advantages = torch.tensor([1.0, 1.0, -2.0, -1.0, -1.0, 0.5])
    wanted = torch.tensor([-1.2, -0.6666666, 2.0, 1.8, 0.8, -0.5128205])
    torch.testing.assert_close(policy_losses(log_p, old, advantages, 0.2, 0.2), wanted)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [
        (1.0, 1.0, -1.0),
        (1.25, 1.0, -1.25),  # within the upper bound of 0.3
        (1.35, 1.0, 0.0),  # far enough
        (1.35, -1.0, 1.35),  # too far, and to be brought back
        (0.85, -1.0, 0.0),  # below the lower bound of 0.1: far enough
        (0.85, 1.0, -0.85),
    ],
)
def test_a_token_is_followed_no_further_than_its_bounds(ratio, advantage, slope):
    log_p = torch.tensor([ratio]).log().requires_grad_()
    policy_losses(log_p, torch.zeros(1), torch.tensor([advantage]), 0.1, 0.3).sum().backward()
    assert log_p.grad.item() == pytest.approx(slope, abs=1e-6)


def test_the_clipped_value_is_that_of_trl():
    values, old = torch.tensor([0.5, 0.9, -0.4, 0.1]), torch.tensor([0.4, 0.2, 0.3, 0.1])
    returns = torch.tensor([1.0, 1.0, 1.0, -0.5])
    torch.testing.assert_close(value_losses(values, old, returns, 0.2), torch.tensor([0.125, 0.18, 0.98, 0.18]))
    torch.testing.assert_close(value_losses(values, old, returns, None), 0.5 * (values - returns) ** 2)


def test_the_estimate_of_a_divergence_is_never_negative_and_right_on_average():
    p, q = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.4, 0.4, 0.2])
    found = divergences(p.log(), q.log())
    torch.testing.assert_close(found, q / p - 1 - (q / p).log())
    assert (found >= 0).all()
    torch.testing.assert_close((p * found).sum(), (p * (p / q).log()).sum())
    assert not divergences(p.log(), p.log()).any()


def test_entropy_is_that_of_the_distribution():
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)) * 3
    torch.testing.assert_close(entropies(logits), torch.distributions.Categorical(logits=logits).entropy())
    torch.testing.assert_close(entropies(torch.zeros(1, 8)), torch.tensor([8.0]).log())
    assert entropies(torch.tensor([[1e4, 0.0, 0.0]])).item() == 0

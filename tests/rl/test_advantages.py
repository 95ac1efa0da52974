"""Advantages by hand, and beside the numbers of TRL's last PPO."""

import pytest
import torch

from everlearn.rl.advantages import (
    generalised_advantages,
    group_advantages,
    leave_one_out_advantages,
    moments,
    whiten,
)

# What the lines of TRL 0.20's ppo_trainer.py give on these (run from its source): gamma 0.9, lambda 0.8
REWARDS = torch.tensor([[0.0, 0.1, -0.1, 1.0], [0.25, -1.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]])
VALUES = torch.tensor([[0.5, -0.25, 0.75, 0.25], [1.0, 0.5, 0.0, 0.0], [-0.5, 0.0, 0.0, 0.0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
ADVANTAGES = torch.tensor([[-0.0310640, 0.9638, -0.085, 0.75], [-1.38, -1.5, 0, 0], [1.0, 0, 0, 0]])
RETURNS = torch.tensor([[0.468936, 0.7138, 0.665, 1.0], [-0.38, -1.0, 0, 0], [0.5, 0, 0, 0]])
WHITENED = torch.tensor([0.0088002, 0.9543179, -0.0424605, 0.7511226, -1.2732275, -1.3872752, 0.9887223])


def test_an_answer_is_compared_with_its_group():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 3.0]])
    wanted = torch.tensor([[1.0, -1.0, -1.0, 1.0], [-0.75, -0.75, -0.75, 2.25]])
    wanted[1] /= 27**0.5 / 4  # mean 3/4, mean square 9/4
    torch.testing.assert_close(group_advantages(rewards), wanted)
    plain = torch.tensor([[0.5, -0.5, -0.5, 0.5], [-0.75, -0.75, -0.75, 2.25]])
    torch.testing.assert_close(group_advantages(rewards, normalise=False), plain)


def test_an_answer_is_compared_with_the_others_to_its_problem():
    rewards = torch.tensor([[1.0, 0.0, 0.5]])
    torch.testing.assert_close(leave_one_out_advantages(rewards), torch.tensor([[0.75, -0.75, 0.0]]))


@pytest.mark.parametrize("advantages", [group_advantages, leave_one_out_advantages])
@pytest.mark.parametrize("worth", [0.0, 0.1, 1 / 3, 1.0])
def test_where_all_earn_the_same_nobody_is_better(advantages, worth):
    assert not advantages(torch.full((2, 7), worth)).any()


def test_generalised_advantages_by_hand():
    """One response of two tokens, 1 at its end: delta = [0.9 * 0.25 - 0.5, 1 - 0.25]."""
    rewards, values, mask = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]]), torch.ones(1, 2, dtype=torch.bool)
    advantages, returns = generalised_advantages(rewards, values, mask, 0.9, 0.8)
    torch.testing.assert_close(advantages, torch.tensor([[-0.275 + 0.72 * 0.75, 0.75]]))
    torch.testing.assert_close(returns, torch.tensor([[0.265 + 0.5, 1.0]]))


def test_generalised_advantages_are_those_of_trl():
    advantages, returns = generalised_advantages(REWARDS, VALUES, MASK, 0.9, 0.8)
    torch.testing.assert_close(advantages, ADVANTAGES)
    torch.testing.assert_close(returns, RETURNS)


def test_with_lambda_1_the_return_is_the_sum_of_rewards_whatever_the_critic_says():
    _, returns = generalised_advantages(REWARDS, VALUES, MASK)
    torch.testing.assert_close(returns, REWARDS.flip(1).cumsum(1).flip(1) * MASK, atol=1e-6, rtol=0)


def test_what_stands_behind_the_end_has_no_part():
    changed = [torch.where(MASK, tensor, 7.0) for tensor in (REWARDS, VALUES)]
    for found, wanted in zip(
        generalised_advantages(*changed, MASK, 0.9, 0.8), generalised_advantages(REWARDS, VALUES, MASK, 0.9, 0.8),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(found, wanted)


def test_whitening_is_that_of_trl_but_for_its_deviation_of_a_sample():
    found = whiten(ADVANTAGES[MASK], torch.ones(7))
    torch.testing.assert_close(found * (6 / 7) ** 0.5, WHITENED, atol=1e-6, rtol=1e-6)


def test_whitening_counts_as_often_as_it_is_told_and_over_all_processes():
    values, weights = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([3.0, 1.0, 2.0])
    repeated = values.repeat_interleave(weights.long())
    wanted = (repeated - repeated.mean()) / repeated.std(correction=0)
    torch.testing.assert_close(whiten(values, weights).repeat_interleave(weights.long()), wanted)
    total = moments(values[:1], weights[:1]) + moments(values[1:], weights[1:])
    apart = torch.cat([whiten(values[:1], weights[:1], total), whiten(values[1:], weights[1:], total)])
    torch.testing.assert_close(apart, whiten(values, weights))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3])
def test_values_that_are_all_the_same_whiten_to_nothing(value):
    found = whiten(torch.full((1000,), value), torch.ones(1000))
    assert found.abs().max() < 1e-3

"""Measures of fidelity and privacy against what is known in closed form."""

import numpy as np
import pytest
import torch

from everlearn.memory.latent.fidelity import (
    answer_distance,
    frechet_distance,
    nearest_distances,
    nearness,
    pooled,
    precision_and_recall,
    relative_error,
)
from everlearn.memory.latent.layers import Latents


def points(n, width=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width))


def test_the_error_is_0_of_what_is_restored_and_1_of_the_mean():
    states = torch.randn(6, 5, 3)
    mask = torch.arange(5) < torch.tensor([5, 4, 3, 2, 5, 5])[:, None]
    assert relative_error(states, states, mask) == 0
    inner = mask[:, 1:]
    mean = states[:, 1:][inner].mean(0).expand_as(states)
    assert relative_error(states, mean, mask) == pytest.approx(1)
    spoilt = states.clone()
    spoilt[:, 0] += 9  # a first position is left out,
    spoilt[~mask] += 9  # and what is no row's own
    assert relative_error(states, spoilt, mask) == 0


def test_the_frechet_distance_of_gaussians():
    real = points(500)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
    scale = np.sqrt(np.trace(np.cov(real.T)) / 4)
    shift = np.array([3.0, 0, 0, 0])
    assert frechet_distance(real, real + shift) == pytest.approx(9 / scale**2, rel=1e-6)
    mean = real.mean(0)  # C' = 4 C: tr(C + 4 C - 2 * 2 C) = tr C = 4, in units of the real variance
    assert frechet_distance(real, mean + 2 * (real - mean)) == pytest.approx(4, rel=1e-6)


def test_precision_falls_with_what_is_not_real_and_recall_with_what_is_missing():
    real = points(200)
    assert precision_and_recall(real, real) == (1.0, 1.0)
    assert precision_and_recall(real, real + 100) == (0.0, 0.0)
    half = real[real[:, 0] > 0]
    precision, recall = precision_and_recall(real, half)
    assert precision == 1.0
    assert recall < 0.9
    precision, recall = precision_and_recall(real, np.concatenate([real, real + 100]))
    assert (precision, recall) == (0.5, 1.0)


def test_what_repeats_its_rows_is_nearer_to_them():
    rows = points(300)
    trained, held_out, other = rows[:100], rows[100:200], rows[200:]
    assert nearness(trained + 1e-3, trained, held_out) == 1.0
    assert nearness(other, trained, held_out) == pytest.approx(0.5, abs=0.15)
    assert nearness(other, trained, trained) == 0.5
    assert nearest_distances(trained, trained).max() == 0


def test_rows_are_pooled_without_first_positions_and_padding():
    states = torch.randn(2, 3, 4)
    latents = Latents(states, torch.tensor([3, 1]), torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2))
    np.testing.assert_allclose(pooled(latents)[0], states[0, 1:].mean(0).numpy(), rtol=1e-6)
    np.testing.assert_allclose(pooled(latents)[1], states[1, 0].numpy(), rtol=1e-6)  # there is no other


def test_the_distance_of_answers_is_their_total_variation():
    one, other = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert answer_distance(one, other) == pytest.approx(0.5)
    assert answer_distance(one, one.flip(0)) == 0

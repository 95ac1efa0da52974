"""Mixtures say what was there, and no more sharply than codes are read."""

import pytest
import torch

from everlearn.memory.latent.generator import NOISE
from everlearn.memory.latent.mixture import draw, fit_mixture, fit_mixtures, kinds_of


def clusters(n=40):
    """Return codes [2n, 2, 3] around two points, with lengths and numbers of targets of their own."""
    noise = torch.randn(2 * n, 2, 3, generator=torch.Generator().manual_seed(0))
    near = torch.arange(2 * n) < n
    codes = torch.where(near[:, None, None], -2.0, 2.0) + 0.3 * noise
    return codes, torch.where(near, 5, 20), torch.where(near, 1, 4)


def test_what_is_drawn_is_alike_in_codes_lengths_and_targets():
    mixture = fit_mixture(*clusters(), n_components=2, seed=0)
    assert mixture["means"].shape == (2, 8)
    torch.testing.assert_close(mixture["weights"].sort().values, torch.tensor([0.5, 0.5]))
    drawn = draw(mixture, 400, (2, 3), 64, torch.Generator().manual_seed(0))
    short = drawn.lengths < 10
    assert 150 < short.sum() < 250
    assert (drawn.codes[short].mean(0) + 2).abs().max() < 0.1
    assert drawn.codes[~short].std(0).mean() == pytest.approx((0.3**2 + NOISE**2) ** 0.5, rel=0.1)
    assert set(drawn.n_targets[short].tolist()) == {1}
    assert drawn.lengths[~short].float().mean() == pytest.approx(20, rel=0.05)
    assert drawn.prototypes is None


def test_no_row_is_kept_as_a_point():
    codes = torch.randn(9, 1, 4)
    for n in (1, 2, 9):
        mixture = fit_mixture(codes[:n], torch.full((n,), 7), torch.ones(n), n_components=8, seed=0)
        assert len(mixture["weights"]) == max(1, n // 4)
        assert mixture["deviations"].min() >= NOISE * 0.999


def test_each_kind_has_components_of_its_own_by_its_share():
    codes, lengths, n_targets = clusters()
    kinds = (torch.arange(80) >= 60).long()  # the first holds all of one cluster and half of the other
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    mixture = fit_mixtures(codes, lengths, n_targets, kinds, prototypes, n_components=2, seed=0)
    assert mixture["kinds"].tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(mixture["weights"][2:].sum(), torch.tensor(0.25))
    drawn = draw(mixture, 200, (2, 3), 64, torch.Generator().manual_seed(0))
    second = drawn.prototypes[:, 1] == 1
    assert 30 < second.sum() < 70
    assert (drawn.codes[second].mean(0) - 2).abs().max() < 0.3


def test_lengths_have_bounds_and_the_same_draw_gives_the_same_rows():
    mixture = fit_mixture(*clusters(), n_components=1, seed=0)
    drawn = draw(mixture, 400, (2, 3), 8, torch.Generator().manual_seed(5))
    assert (drawn.lengths.min() >= 2, drawn.lengths.max() == 8) == (True, True)
    assert (drawn.n_targets <= drawn.lengths).all()
    again = draw(mixture, 400, (2, 3), 8, torch.Generator().manual_seed(5))
    assert torch.equal(drawn.codes, again.codes)


def test_kinds_are_the_frequent_answers_and_all_others():
    answers = ["a"] * 6 + ["b"] * 5 + ["c"] * 4 + ["d"] * 2
    assert kinds_of(answers, 2).tolist() == [0] * 6 + [1] * 5 + [2] * 6
    assert kinds_of(answers, 9).tolist() == [0] * 6 + [1] * 5 + [2] * 4 + [0] * 2  # two are too few for a kind
    assert kinds_of(answers[-3:], 9).tolist() == [0] * 3
    assert kinds_of(answers, 0).tolist() == [0] * 17

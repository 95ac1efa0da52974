"""Measures of p(reuse)."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from everlearn.errors import ConfigError
from everlearn.evaluation.reliability import reliability


def sample(n: int, seed: int = 0, bent: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return chances, and outcomes of which the chance is p to the power `bent`."""
    random = np.random.default_rng(seed)
    p = random.beta(2, 2, n)
    return p, random.random(n) < p**bent


def test_the_numbers_are_those_of_the_formulas():
    p, right = sample(200)
    found = reliability(p, right)
    assert found.n == 200
    assert found.brier.found.value == pytest.approx(brier_score_loss(right, p))
    assert found.log_loss.found.value == pytest.approx(log_loss(right, p))
    bins = np.minimum((p * 10).astype(int), 9)
    ece = sum(abs(p[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    assert found.ece.found.value == pytest.approx(ece)
    assert [one.n for one in found.bins] == [int((bins == b).sum()) for b in sorted(set(bins))]
    assert found.bins[4].p == pytest.approx(p[bins == 4].mean())
    assert found.bins[4].right.value == pytest.approx(right[bins == 4].mean())
    assert found.bins[4].right.low < found.bins[4].right.value < found.bins[4].right.high


@pytest.mark.parametrize(("n", "ece"), [(20, 0.21), (50, 0.14), (100, 0.10), (400, 0.05)])
def test_what_a_calibrated_p_would_show_depends_on_n(n, ece):
    found = reliability(*sample(n))
    assert found.ece.if_calibrated.value == pytest.approx(ece, abs=0.02)
    p = sample(n)[0]
    assert found.brier.if_calibrated.value == pytest.approx(np.mean(p * (1 - p)), abs=0.005)


def test_a_calibrated_p_lies_within_it_and_another_does_not():
    inside = [reliability(*sample(300, seed)) for seed in range(20)]
    for name in ("brier", "log_loss", "ece"):
        parts = [getattr(one, name) for one in inside]
        assert sum(one.if_calibrated.low <= one.found.value <= one.if_calibrated.high for one in parts) >= 17
    bent = reliability(*sample(300, 1, bent=3.0))
    assert bent.ece.found.low > bent.ece.if_calibrated.value
    assert bent.ece.found.value > bent.ece.if_calibrated.high


def test_the_brier_score_lies_in_its_interval():
    truth = np.mean((sample(200_000)[0] - sample(200_000)[1]) ** 2)
    held = [reliability(*sample(150, seed)).brier.found for seed in range(30)]
    assert sum(one.low <= truth <= one.high for one in held) >= 27


def test_sure_and_wrong_is_dear_but_not_infinite():
    assert 4 < reliability([1.0, 0.0, 0.5], [False, False, True]).log_loss.found.value < 5


@pytest.mark.parametrize(("p", "right"), [([], []), ([0.5], [True, False]), ([1.2], [True]), ([float("nan")], [True])])
def test_what_is_no_chance_is_refused(p, right):
    with pytest.raises(ConfigError, match="reliability"):
        reliability(p, right)

"""How well chances agree with what came of them: Brier score, log loss, calibration error, a reliability diagram."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from everlearn.errors import ConfigError, describe
from everlearn.evaluation.stats import Interval, mean_interval, wilson_interval, within

N_BINS = 10
N_DRAWS = 1000
CUT = 1e-6  # p is held so far from 0 and 1 in the log loss, for else one surprise is infinite


@dataclass(frozen=True)
class Bin:
    """A bar of a reliability diagram: n outcomes of p from `low` to `high`, their mean p, the share that was right."""

    low: float
    high: float
    n: int
    p: float
    right: Interval


@dataclass(frozen=True)
class Measure:
    """A measure of p, with its 95% interval, and what it would be if p were exactly the chance: the mean, and where 95%
    of such samples lie."""  # fmt: skip

    found: Interval
    if_calibrated: Interval


@dataclass(frozen=True)
class Reliability:
    """How p agrees with n outcomes. share: that was right, overall. ece: expected calibration error."""

    n: int
    share: Interval
    brier: Measure
    log_loss: Measure
    ece: Measure
    bins: tuple[Bin, ...]


def reliability(p: Sequence[float], right: Sequence[bool], n_bins: int = N_BINS) -> Reliability:
    """Return how chances agree with outcomes.

    - Brier score: mean (p − right)²; log loss: mean −log of the chance given to what came, nats. Intervals are
      Student's over outcomes, which must be of chances told before they were known.
    - ECE: Σ over bins of equal width of n_b / n · |mean p − share right|. It's biased upwards: a calibrated p has
      0.2 at n = 20. Its interval is the basic bootstrap's over outcomes, which takes the bias back, stretched to
      hold the estimate; it says little without `if_calibrated`.

    `if_calibrated` is over 1,000 seeded draws of outcomes from p.

    Args:
        p: in [0, 1], [n]. right: [n].

    Raises:
        ConfigError: if there is nothing, the lengths differ or p is no chance.
    Cost: 20 ms at n = 1,000.
    Source: Brier 1950; Guo et al. 2017, On calibration of modern neural networks; Bröcker & Smith 2007, Increasing the
        reliability of reliability diagrams, for the draws from p.
    """
    chances, came = np.asarray(p, dtype=float), np.asarray(right, dtype=float)
    if chances.ndim != 1 or not len(chances) or chances.shape != came.shape:
        raise ConfigError(
            describe("reliability", "needs an outcome for each p", (len(chances), len(came)), "Give both")
        )
    if not ((chances >= 0) & (chances <= 1)).all():
        way_out = "Give chances between 0 and 1"
        raise ConfigError(describe("reliability: p", "is no chance", float(chances.min()), way_out))
    random, n = np.random.default_rng(0), len(chances)
    place = np.minimum((chances * n_bins).astype(int), n_bins - 1)
    in_bins = np.eye(n_bins)[place]
    drawn = (random.random((N_DRAWS, n)) < chances).astype(float)
    brier, losses = (
        Measure(within(mean_interval(loss(chances, came)), (0, np.inf)), _spread(loss(chances, drawn).mean(1)))
        for loss in (_brier, _log_loss)
    )
    errors = (came - chances)[:, None] * in_bins
    ece = float(np.abs(errors.sum(0)).sum() / n)
    again = np.abs(random.multinomial(n, np.full(n, 1 / n), N_DRAWS) @ errors).sum(1) / n
    low, high = 2 * ece - np.quantile(again, [0.975, 0.025])
    of_drawn = np.abs((drawn - chances) @ in_bins).sum(1) / n
    return Reliability(
        n, wilson_interval(float(came.sum()), n), brier, losses,
        Measure(within(Interval(ece, min(ece, float(low)), max(ece, float(high))), (0, 1)), _spread(of_drawn)),
        tuple(_bin(int(b), n_bins, chances[place == b], came[place == b]) for b in np.unique(place)),
    )  # fmt: skip


def _bin(number: int, n_bins: int, p: np.ndarray, right: np.ndarray) -> Bin:
    share = wilson_interval(float(right.sum()), len(p))
    return Bin(number / n_bins, (number + 1) / n_bins, len(p), float(p.mean()), share)


def _brier(p: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (p - right) ** 2


def _log_loss(p: np.ndarray, right: np.ndarray) -> np.ndarray:
    cut = p.clip(CUT, 1 - CUT)
    return -np.where(right > 0, np.log(cut), np.log1p(-cut))


def _spread(samples: np.ndarray) -> Interval:
    low, high = np.quantile(samples, [0.025, 0.975])
    return Interval(float(samples.mean()), float(low), float(high))

"""Many comparisons at once: Holm's correction, Friedman's test, and Nemenyi's critical difference of mean ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from everlearn.errors import ConfigError, describe
from everlearn.evaluation.stats import LEVEL


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of methods over blocks, 1 is best. Two methods differ where their ranks do by more than `critical`."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    n_blocks: int
    statistic: float
    p_value: float
    critical: float

    def groups(self) -> list[tuple[str, ...]]:
        """Return the longest runs of methods, the best first, that can't be told apart; two or more in each."""
        order = sorted(range(len(self.names)), key=lambda i: self.mean[i])
        runs: list[tuple[int, int]] = []
        for first, one in enumerate(order):
            last = max(place for place, other in enumerate(order) if self.mean[other] - self.mean[one] <= self.critical)
            if last > first and not any(last <= other for _, other in runs):
                runs.append((first, last))
        return [tuple(self.names[i] for i in order[first : last + 1]) for first, last in runs]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected so that all together err as seldom as one: p̃_(i) = max_{j ≤ i} (m − j + 1)·p_(j).

    NaN, of a comparison that can't be tested, stays and doesn't count.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected, highest = [math.nan] * len(p_values), 0.0
    for position, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - position) * p))
        corrected[place] = highest
    return corrected


def rank(names: Sequence[str], scores: Sequence[Sequence[float]], level: float = LEVEL) -> Ranks:
    """Return the methods' mean ranks, Friedman's test of whether any differ, and Nemenyi's critical difference.

    CD = q/√2 · √(k(k+1)/(6N)), q the studentized range's quantile for k methods and infinite degrees of freedom.

    Args:
        names: of k methods, 2 or more.
        scores: [N blocks][k], higher is better; equals share their mean rank.
    Raises:
        ConfigError: with fewer than 2 methods or 2 blocks.
    Source: Friedman 1937; Nemenyi 1963; Demšar 2006, Statistical comparisons of classifiers over multiple data sets.
        With ties χ² is divided by 1 − Σ(t³−t)/(N·k(k²−1)).
    """
    data = np.asarray(scores, float)
    if data.ndim != 2 or data.shape[0] < 2 or data.shape[1] != len(names) or len(names) < 2:
        way_out = "Rank two methods or more on two blocks or more"
        raise ConfigError(describe("ranks", "need N blocks of k scores", data.shape, way_out))
    ranks = distributions.rankdata(-data, axis=1)
    n_blocks, k = ranks.shape
    mean = ranks.mean(0)
    tied = sum(float((counts**3 - counts).sum()) for counts in (np.unique(row, return_counts=True)[1] for row in ranks))
    spread = 12 * n_blocks / (k * (k + 1)) * float(((mean - (k + 1) / 2) ** 2).sum())
    untied = 1 - tied / (n_blocks * (k**3 - k))
    statistic = spread / untied if untied > 0 else 0.0
    p_value = float(distributions.chi2.sf(statistic, k - 1))
    q = float(distributions.studentized_range.ppf(level, k, np.inf))
    critical = q / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n_blocks))
    return Ranks(tuple(names), tuple(float(one) for one in mean), n_blocks, statistic, p_value, critical)

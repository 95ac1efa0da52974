"""Is a loss real? One-sided paired tests on the same items, and Holm's step-down over many of them. Pure functions."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats as distributions

CHANCE = 0.05  # of refusing an update that loses nothing, over all comparisons together


def loss_p_value(before: Sequence[float], after: Sequence[float], margin: float = 0.0) -> float | None:
    """Return how likely a loss as large as this one is if the true loss is at most `margin`.

    Right/wrong items, margin 0: McNemar's test in its mid-p form, P(X > c) + ½·P(X = c) for X ~ Binomial(b + c, ½),
    with c items lost and b gained. Margin above 0: with p̃ = (b+1)/(n+2), q̃ = (c+1)/(n+2), the normal tail beyond
    (q̃ − p̃ − margin) / √((p̃ + q̃ − (q̃ − p̃)²)/(n+2)), the test that belongs to the interval of `paired_difference`.
    Other items: Student's test on the differences.

    Args:
        before, after: [n] outcomes on the same items in the same order, finite.
    Returns:
        The one-sided p-value; None where a single item that is neither right nor wrong gives no test.
    Source: Fagerland, Lydersen & Laake 2013, The McNemar test for binary matched-pairs data: mid-p and asymptotic are
        better than exact conditional. Bonett & Price 2012. Student 1908.
    """
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    loss = first - second
    if np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all():
        n_lost, n_gained = int((loss > 0).sum()), int((loss < 0).sum())
        return _mid_p(n_lost, n_gained) if margin == 0 else _adjusted_wald_p(n_lost, n_gained, len(loss), margin)
    if len(loss) < 2:
        return None
    spread = float(loss.std(ddof=1)) / math.sqrt(len(loss))
    excess = float(loss.mean()) - margin
    if spread == 0.0:  # every item moved by the same amount
        return 0.0 if excess > 0 else 1.0
    return float(distributions.t.sf(excess / spread, len(loss) - 1))


def holm(p_values: Sequence[float], n_tests: int) -> list[float]:
    """Return p-values adjusted so that comparing each with a level bounds the chance of any false rejection by it.

    The i-th smallest of them becomes max over j ≤ i of (m − j + 1)·p_j, at most 1. It holds however the tests hang
    together.

    Args:
        n_tests: m, at least the number of p-values; tests beyond them count as such that reject nothing.
    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (n_tests - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _mid_p(n_lost: int, n_gained: int) -> float:
    n = n_lost + n_gained
    return float(distributions.binom.sf(n_lost, n, 0.5) + distributions.binom.pmf(n_lost, n, 0.5) / 2) if n else 1.0


def _adjusted_wald_p(n_lost: int, n_gained: int, n: int, margin: float) -> float:
    lost, gained = (n_lost + 1) / (n + 2), (n_gained + 1) / (n + 2)
    loss = lost - gained
    return float(distributions.norm.sf((loss - margin) / math.sqrt((lost + gained - loss * loss) / (n + 2))))

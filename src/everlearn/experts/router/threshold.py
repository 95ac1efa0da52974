"""The bar for p(reuse): it moves with what came of reuses, so that a chosen share of them is false."""

from collections.abc import Sequence

import numpy as np

WINDOW = 200  # tasks whose p the cap looks at
FIRST = 5  # tasks before there is a cap
CAP = 0.95


def moved(tau: float, false_reuse: bool, risk: float, step: float) -> float:
    """Return tau after an outcome: tau + step · ([false reuse] − risk).

    After n outcomes the rate of false ones is risk + (tau now − tau at first) / (step · n), whatever the tasks: as long
    as tau stays in bounds the rate is held. So tau is never cut here; `capped` cuts it where it is compared.

    Source: Gibbs & Candès 2021, Adaptive conformal inference under distribution shift.
    """
    return tau + step * (false_reuse - risk)


def capped(tau: float, recent: Sequence[float] | np.ndarray) -> float:
    """Return what p is compared with: tau, but no more than the 95th percentile of the last tasks' p.

    Without the cap tau would stay above every p after some false reuses: nothing is reused, so nothing brings it down.

    Args:
        recent: the highest p of each of the last tasks.
    """
    return tau if len(recent) < FIRST else min(tau, float(np.quantile(recent[-WINDOW:], CAP)))

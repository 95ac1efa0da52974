"""The bar for p(reuse): it moves with what came of reuses, so that a chosen share of them is false."""

import math
from collections.abc import Sequence

import numpy as np

WINDOW = 200  # tasks whose p the cap looks at
FIRST = 20  # tasks before there is a cap
CAP = 0.95


def moved(tau: float, false_reuse: bool, risk: float, step: float) -> float:
    """Return tau after an outcome: tau + step · ([false reuse] − risk).

    After n outcomes the rate of false ones is risk + (tau now − tau at first) / (step · n), whatever the tasks: as long
    as tau stays in bounds the rate is held. So tau is never cut here; `cap` is for where it is compared.

    Source: Gibbs & Candès 2021, Adaptive conformal inference under distribution shift.
    """
    return tau + step * (false_reuse - risk)


def cap(recent: Sequence[float] | np.ndarray) -> float:
    """Return what tau is held below where it is compared: the 95th percentile of the last tasks' p.

    Without it tau would stay above every p after some false reuses: nothing is reused, so nothing brings it down.

    Args:
        recent: p of the best expert of each of the last tasks; there is no cap for fewer than 20.
    """
    if len(recent) < FIRST:
        return math.inf
    place = math.ceil(CAP * (len(recent) - 1))
    return float(np.partition(recent, place)[place])

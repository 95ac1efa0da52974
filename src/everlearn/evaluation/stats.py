"""Intervals and paired tests: how sure a score, or the difference of two scores on the same items, is.

Everything is closed form: the same numbers on every machine, no random resampling. Intervals cover 95% unless told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from everlearn.errors import ConfigError, describe

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval; `low` and `high` are NaN where the data can't give one."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """How `after` differs from `before` on the same n items: after − before, so that a loss is negative.

    `discordance` is the mean square of the item differences; for right/wrong items the share on which the two disagree.
    `n_lost` and `n_gained` count the items that went down and up.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    n_lost: int
    n_gained: int
    discordance: float
    test: str


def wilson_interval(n_right: float, n: int, level: float = LEVEL) -> Interval:
    """Return the share n_right / n with Wilson's score interval, sound at shares of 0 and 1.

    Raises:
        ConfigError: if n < 1 or n_right is outside 0…n.
    Source: Wilson 1927, Probable inference.
    """
    if n < 1 or not 0 <= n_right <= n:
        raise ConfigError(describe("wilson_interval", "needs 0 ≤ n_right ≤ n, n ≥ 1", (n_right, n), "Count the items"))
    z = _z(level)
    share = n_right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean with Student's interval: mean ± t·s/√n. For per-item values, and for one value per seed.

    Args:
        values: [n] finite numbers. One value gives NaN bounds: a single seed says nothing about others.
    Raises:
        ConfigError: if there is no value, or one is not finite.
    Source: Student 1908.
    """
    data = _finite(values, "mean_interval")
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(distributions.t.ppf(_upper(level), len(data) - 1) * data.std(ddof=1) / math.sqrt(len(data)))
    return Interval(mean, mean - half, mean + half)


def outcome_interval(outcomes: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean of per-item outcomes: Wilson's interval if all are 0 or 1, Student's otherwise."""
    data = _finite(outcomes, "outcome_interval")
    return wilson_interval(float(data.sum()), len(data), level) if _is_binary(data) else mean_interval(data, level)


def paired_difference(before: Sequence[float], after: Sequence[float], level: float = LEVEL) -> PairedDifference:
    """Return the mean of after − before over the same items, with interval and two-sided p-value.

    Right/wrong items: with b gained and c lost of n, p̃ = (b+1)/(n+2), q̃ = (c+1)/(n+2), the interval is
    p̃ − q̃ ± z·√((p̃ + q̃ − (p̃ − q̃)²)/(n+2)); it has a width even if no item differs. The p-value is the exact
    McNemar test.
    Other items: Student's interval and test on the differences.

    Args:
        before: [n] outcomes of one run or version.
        after: [n] outcomes of the other, on the same items in the same order.
    Raises:
        ConfigError: if the two differ in length, are empty, or hold a value that is not finite.
    Source: Bonett & Price 2012, Adjusted Wald confidence interval for a difference of binomial proportions based on
        paired data; recommended by Fagerland, Lydersen & Laake 2014. McNemar 1947.
    """
    first, second = _finite(before, "paired_difference"), _finite(after, "paired_difference")
    if len(first) != len(second):
        way_out = "Compare runs on the same items"
        raise ConfigError(describe("paired_difference", "lengths differ", (len(first), len(second)), way_out))
    change = second - first
    n, n_gained, n_lost = len(change), int((change > 0).sum()), int((change < 0).sum())
    if _is_binary(first) and _is_binary(second):
        test = "exact McNemar"
        interval = _binary_difference(n, n_gained, n_lost, level)
        p_value = _mcnemar(n_gained, n_lost)
    else:
        test = "paired t"
        interval = mean_interval(change, level)
        p_value = paired_t_p(change)
    discordance = float((change * change).mean())
    low, high = interval.low, interval.high
    return PairedDifference(float(change.mean()), low, high, p_value, n, n_lost, n_gained, discordance, test)


def paired_t_p(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of Student's test that paired differences have mean 0; NaN for a single one.

    Source: Student 1908.
    """
    change = _finite(differences, "paired_t_p")
    if not change.any():
        return 1.0
    if len(change) < 2:
        return math.nan
    spread = float(change.std(ddof=1)) / math.sqrt(len(change))
    if spread == 0.0:  # every item moved by the same amount
        return 0.0
    return float(2 * distributions.t.sf(abs(float(change.mean())) / spread, len(change) - 1))


def items_needed(
    tolerance: float, discordance: float, loss: float = 0.0, level: float = LEVEL, power: float = 0.8
) -> int | None:
    """Return how many items would tell a true loss of `loss` from a loss of `tolerance`.

    It is the smallest n at which the interval of `paired_difference` excludes the tolerance with probability `power`:
    |tolerance − loss| ≥ z_level·s̃(n)/√(n+2) + z_power·s/√n, with s² = discordance − loss²; s̃ counts one
    item more on each side.

    Args:
        tolerance: the loss that is still accepted, ≥ 0, as a share.
        discordance: the share of items on which the two disagree (`PairedDifference.discordance`), ≥ 0.
        loss: the loss that is really there, as a share; 0 asks how many items clear a change that does no harm.
    Returns:
        The number of items, or None if loss equals tolerance: no number tells those apart.
    Raises:
        ConfigError: if tolerance or discordance is negative or not finite.
    Source: Connor 1987, Sample size for testing differences in proportions for the paired-sample design; with the
        interval of Bonett & Price 2012 in place of the test.
    """
    if not (0 <= tolerance < math.inf and 0 <= discordance < math.inf and math.isfinite(loss)):
        got = {"tolerance": tolerance, "discordance": discordance, "loss": loss}
        raise ConfigError(describe("items_needed", "needs finite numbers ≥ 0", got, "Pass shares such as 0.02"))
    margin = abs(tolerance - loss)
    if margin < 1e-9:
        return None
    discordance = max(discordance, abs(loss))
    z_level, z_power = _z(level), float(distributions.norm.ppf(power))
    spread = math.sqrt(max(discordance - loss * loss, 0.0))

    def tells(n: int) -> bool:
        shrink = n / (n + 2)
        adjusted = (discordance * n + 2) / (n + 2) - (loss * shrink) ** 2
        return margin >= z_level * math.sqrt(adjusted / (n + 2)) + z_power * spread / math.sqrt(n)

    return _smallest(tells)


def combine_intervals(parts: Sequence[Interval]) -> Interval:
    """Return the mean of independent estimates, with the interval that follows from theirs.

    low = θ − √Σ(θ_i − l_i)²/k, high = θ + √Σ(h_i − θ_i)²/k. It keeps the shape of the parts (Wilson's near 0 and 1),
    and the parts may be paired differences. For one run each task is a part: its items are apart from the others'.

    Raises:
        ConfigError: if there are no parts.
    Source: Zou & Donner 2008, Construction of confidence limits about effect measures (MOVER); Newcombe 1998.
    """
    if not parts:
        raise ConfigError(describe("combine_intervals", "there is nothing to combine", parts, "Pass an interval"))
    value = sum(part.value for part in parts) / len(parts)
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / len(parts)
    return Interval(value, value - below, value + above)


def difference_of_intervals(before: Interval, after: Interval) -> Interval:
    """Return after − before for two independent estimates; on the same items it is too wide, never too narrow,
    as long as the two go up and down together.

    Source: Newcombe 1998, Interval estimation for the difference between independent proportions, method 10.
    """
    value = after.value - before.value
    below = math.hypot(after.value - after.low, before.high - before.value)
    above = math.hypot(after.high - after.value, before.value - before.low)
    return Interval(value, value - below, value + above)


def _binary_difference(n: int, n_gained: int, n_lost: int, level: float) -> Interval:
    gained, lost = (n_gained + 1) / (n + 2), (n_lost + 1) / (n + 2)
    centre = gained - lost
    half = _z(level) * math.sqrt((gained + lost - centre * centre) / (n + 2))
    return Interval((n_gained - n_lost) / n, max(-1.0, centre - half), min(1.0, centre + half))


def _mcnemar(n_gained: int, n_lost: int) -> float:
    if n_gained + n_lost == 0:
        return 1.0
    return float(distributions.binomtest(n_gained, n_gained + n_lost, 0.5).pvalue)


def _smallest(holds, limit: int = 10**12) -> int:
    """Return the smallest n ≥ 1 for which a condition that stays true holds."""
    high = 1
    while not holds(high) and high < limit:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _z(level: float) -> float:
    return float(distributions.norm.ppf(_upper(level)))


def _upper(level: float) -> float:
    """Return the upper end of the central `level` of a distribution, as a probability."""
    if not 0 < level < 1:
        raise ConfigError(describe("level", "is outside 0…1", level, "Pass 0.95"))
    return (1 + level) / 2


def _is_binary(data: np.ndarray) -> bool:
    return bool(np.isin(data, (0.0, 1.0)).all())


def _finite(values: Sequence[float], where: str) -> np.ndarray:
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or data.size == 0 or not np.isfinite(data).all():
        raise ConfigError(describe(where, "needs a list of finite numbers, at least one", values, "Score an item"))
    return data

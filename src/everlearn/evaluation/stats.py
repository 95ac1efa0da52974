"""Intervals and paired tests: how sure a score, or the difference of two scores on the same items, is.

No random resampling: the same numbers on every machine. Intervals cover 95% unless told. Those of a bounded number are
cut to its range (`within`): what is cut away can't be the true value, so that they cover as often as before.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions
from scipy.optimize import brentq

from everlearn.errors import ConfigError, describe

LEVEL = 0.95
ROUNDING = 1e-12  # relative: a spread below it is one of floating-point numbers, not of scores
TINY = np.finfo(float).tiny
SHARE = (0.0, 1.0)
RANGES = {
    **dict.fromkeys(("matthews", "pearson", "spearman"), (-1.0, 1.0)),
    "reward_margin": (-math.inf, math.inf),
    **dict.fromkeys(("token_log_likelihood", "negative_kl", "negative_mae", "negative_mse"), (-math.inf, 0.0)),
}


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


def range_of(metric: str, *, change: bool = False) -> tuple[float, float]:
    """Return the range of a score by its name, a share unless it is in RANGES; or of the difference of two of them."""
    low, high = RANGES.get(metric, SHARE)
    return (low - high, high - low) if change else (low, high)


def within(interval: Interval, bounds: tuple[float, float]) -> Interval:
    """Return the interval cut to the range of what it is of; ends that are NaN stay so."""
    low, high = (
        end if math.isnan(end) else min(max(end, bounds[0]), bounds[1]) for end in (interval.low, interval.high)
    )
    return Interval(interval.value, low, high)


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
    """Return the mean with Student's interval: mean ± t·s/√n. For independent values.

    Args:
        values: [n] finite numbers. NaN bounds where they can't tell how sure the mean is: for one value, and for values
            that all coincide, as the scores of two seeds on the same few items often do.
    Raises:
        ConfigError: if there is no value, or one is not finite.
    Source: Student 1908.
    """
    data = _finite(values, "mean_interval")
    mean, error = float(data.mean()), _standard_error(data)
    if not error > 0:
        return Interval(mean, math.nan, math.nan)
    half = _t(level, len(data) - 1) * error
    return Interval(mean, mean - half, mean + half)


def outcome_interval(
    outcomes: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf), level: float = LEVEL
) -> Interval:
    """Return the mean of per-item outcomes: Wilson's interval if all are 0 or 1, else Student's within `bounds`."""
    data = _finite(outcomes, "outcome_interval")
    if _is_binary(data):
        return wilson_interval(float(data.sum()), len(data), level)
    return within(mean_interval(data, level), bounds)


def jackknife_interval(
    value: float, without: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf), level: float = LEVEL
) -> Interval:
    """Return a score that is no mean over items, such as F1, with its interval: value ± t·s, within `bounds`.

    s² = (n−1)/n Σ_i (θ_i − mean θ)², θ_i the score without item i.

    Args:
        without: [n] the score without each of the items. NaN bounds where these all coincide, or there is but one.
    Source: Tukey 1958; Efron & Stein 1981, The jackknife estimate of variance.
    """
    data = _finite(without, "jackknife_interval")
    n = len(data)
    error = math.sqrt((n - 1) / n * float(((data - data.mean()) ** 2).sum()))
    if not error > 1e-12:
        return Interval(value, math.nan, math.nan)
    half = _t(level, n - 1) * error
    return within(Interval(value, value - half, value + half), bounds)


def seeds_interval(
    parts: Sequence[Interval], bounds: tuple[float, float] = (-math.inf, math.inf), level: float = LEVEL
) -> Interval:
    """Return the mean over seeds, with an interval for other seeds and other items; a single seed's stands for itself.

    parts: each seed's number, with its interval over the items, which all seeds share. With s the seeds' standard
    deviation, low = mean − √((t·s/√S)² + a²), a being the mean over seeds of value − low; high likewise; within
    `bounds`. So two seeds that coincide are as sure as their items. Where a seed has no interval of its own, it is
    Student's over the seeds alone.

    Raises:
        ConfigError: if there are no parts.
    Source: the sources of error, seeds and items, are those of readers and cases in Obuchowski & Rockette 1995; joined
        as in `paired_seeds`, which see.
    """
    if len(parts) == 1:
        return parts[0]
    student = mean_interval([part.value for part in parts], level)
    below = float(np.mean([part.value - part.low for part in parts]))
    above = float(np.mean([part.high - part.value for part in parts]))
    if math.isnan(below + above):
        return within(student, bounds)
    half = 0.0 if math.isnan(student.low) else student.value - student.low
    low, high = student.value - math.hypot(half, below), student.value + math.hypot(half, above)
    return within(Interval(student.value, low, high), bounds)


def highest_interval(candidates: Callable[[float], Sequence[Interval]], n: int, level: float = LEVEL) -> Interval:
    """Return the highest of n estimates with an interval of the highest true value among them.

    The highest was picked for being high, so that its own interval is too good. All n at once hold their true values
    with probability `level` if each does with 1 − (1 − level)/n (Bonferroni); then the highest true value lies between
    the highest lower and the highest upper end.

    Args:
        candidates: level -> the n estimates with intervals of that level.
    Source: Dunn 1961, Multiple comparisons among means.
    """
    found = candidates(1 - (1 - level) / n)
    return Interval(*(float(np.max([vars(one)[name] for one in found])) for name in ("value", "low", "high")))


def paired_difference(before: Sequence[float], after: Sequence[float], level: float = LEVEL) -> PairedDifference:
    """Return the mean of after − before over the same items, with interval and two-sided p-value.

    Right/wrong items: with b gained and c lost of n, p̃ = (b+1)/(n+2), q̃ = (c+1)/(n+2), the interval is
    p̃ − q̃ ± z·√((p̃ + q̃ − (p̃ − q̃)²)/(n+2)); it has a width even if no item differs. The p-value is the exact
    McNemar test.
    Other items: Student's interval and test on the differences; [0, 0] if no item differs.

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
        interval = mean_interval(change, level) if change.any() else Interval(0.0, 0.0, 0.0)
        p_value = paired_t_p(change)
    discordance = float((change * change).mean())
    low, high = interval.low, interval.high
    return PairedDifference(float(change.mean()), low, high, p_value, n, n_lost, n_gained, discordance, test)


def paired_seeds(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], level: float = LEVEL
) -> PairedDifference:
    """Return the mean of after − before over seeds that share their items; for one seed it is `paired_difference`.

    Both sources of error count, for the claim is on other seeds and other items. d[s, i] being the differences,
    V_s = var(means over items)/S and V_i = var(means over seeds)/n, the interval is
    mean ± √(t²·V_s + z²·V_i), with t of S − 1 degrees of freedom. For right/wrong items V_i and the mean are those of
    the items and two more, one gained and one lost in all seeds (with one seed: Bonett & Price's interval); for others
    t of n − 1 takes the place of z. The p-value is 1 − the level at which the interval reaches 0.

    It is cautious: what seeds and items do together enters V_s and V_i; where there is no
    difference it calls 0% to 4% of comparisons significant, and a t-test over the seeds 4% to 92%
    (benchmarks/comparisons.py: 2 to 5 seeds, 20 to 100 items).

    Args:
        before: [seeds][n] outcomes of one run. after: of the other, the same seeds and items in the same order.
    Returns:
        The difference; n, n_lost, n_gained and discordance are over the items' means.
    Raises:
        ConfigError: if the two differ in shape, are empty, or hold a value that is not finite.
    Source: the two sources of error: Obuchowski & Rockette 1995, Hillis 2007 (several readers, several cases); without
        the term that V_s and V_i share: Cameron, Gelbach & Miller 2011, Robust inference with multiway clustering.
        Margins of unequal degrees of freedom joined by their squares: Zou & Donner 2008; it is never narrower than
        Cochran & Cox's weighted t (1957), which holds its level (Lawton 1965).
    """
    if len(before) == 1 and len(after) == 1:
        return paired_difference(before[0], after[0], level)
    one, other = (np.stack([_finite(row, "paired_seeds") for row in rows]) for rows in (_alike(before), _alike(after)))
    if one.shape != other.shape:
        way_out = "Compare runs on the same seeds and items"
        raise ConfigError(describe("paired_seeds", "shapes differ", (one.shape, other.shape), way_out))
    change = other - one
    of_items, of_seeds = change.mean(0), change.mean(1)
    n_seeds, n = change.shape
    if _is_binary(one.ravel()) and _is_binary(other.ravel()):
        more = np.append(of_items, (1.0, -1.0))
        margins = (_standard_error(of_seeds) * n / (n + 2), n_seeds - 1), (more.std() / math.sqrt(n + 2), math.inf)
        centre, bounds = float(more.mean()), (-1.0, 1.0)
    else:
        margins = (_standard_error(of_seeds), n_seeds - 1), (_standard_error(of_items), n - 1)
        centre, bounds = float(of_items.mean()), (-math.inf, math.inf)
    half, p_value = _joined_margin(margins, level), _joined_p(margins, centre)
    value, discordance = float(of_items.mean()), float((of_items * of_items).mean())
    ends = (0.0, 0.0) if not change.any() and math.isnan(half) else (centre - half, centre + half)
    interval = within(Interval(value, *ends), bounds)
    lost, gained = int((of_items < 0).sum()), int((of_items > 0).sum())
    return PairedDifference(value, interval.low, interval.high, p_value, n, lost, gained, discordance, "seeds × items")


def paired_t_p(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of Student's test that paired differences have mean 0; NaN for a single one.

    n differences that coincide have no spread to judge by; theirs is the sign test's, 2^(1−n). It is never 0.

    Source: Student 1908; Arbuthnot 1710.
    """
    change = _finite(differences, "paired_t_p")
    if not change.any():
        return 1.0
    if len(change) < 2:
        return math.nan
    error = _standard_error(change)
    if error == 0.0:
        return max(2.0 ** (1 - len(change)), TINY)
    return max(float(2 * distributions.t.sf(abs(float(change.mean())) / error, len(change) - 1)), TINY)


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

    low = θ − √Σ(θ_i − l_i)²/k, high = θ + √Σ(h_i − θ_i)²/k. It keeps the shape of the parts (Wilson's near 0 and 1)
    and their range, and the parts may be paired differences. For one run each task is a part: its items are apart from
    the others'.

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


def at_level(interval: Interval, level: float) -> Interval:
    """Return a 95% interval of which no more is known as one of another level: its margins times z_level/z_0.95."""
    factor = _z(level) / _z(LEVEL)
    low = interval.value - factor * (interval.value - interval.low)
    return Interval(interval.value, low, interval.value + factor * (interval.high - interval.value))


def _binary_difference(n: int, n_gained: int, n_lost: int, level: float) -> Interval:
    gained, lost = (n_gained + 1) / (n + 2), (n_lost + 1) / (n + 2)
    centre = gained - lost
    half = _z(level) * math.sqrt((gained + lost - centre * centre) / (n + 2))
    return Interval((n_gained - n_lost) / n, max(-1.0, centre - half), min(1.0, centre + half))


def _alike(rows: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    if len({len(row) for row in rows}) != 1:
        lengths = [len(row) for row in rows]
        raise ConfigError(describe("paired_seeds", "seeds differ in their items", lengths, "Compare on the same items"))
    return rows


def _joined_margin(margins: Sequence[tuple[float, float]], level: float) -> float:
    """Return √Σ(t·error)² for (standard error, degrees of freedom) of each source; NaN where none can be told."""
    half = math.hypot(*(error and _t(level, freedom) * error for error, freedom in margins))
    return half if half > 0 else math.nan


def _joined_p(margins: Sequence[tuple[float, float]], centre: float) -> float:
    """Return 1 − the level at which `_joined_margin` is as wide as the distance to 0; NaN where it can't be told."""
    if centre == 0:
        return 1.0
    if math.isnan(_joined_margin(margins, LEVEL)):
        return math.nan

    def excess(log_p: float) -> float:
        ends = (-distributions.t.ppf(math.exp(log_p) / 2, freedom) for _, freedom in margins)
        return math.hypot(*(error and t * error for t, (error, _) in zip(ends, margins, strict=True))) - abs(centre)

    lowest = math.log(TINY)
    return TINY if excess(lowest) < 0 else math.exp(brentq(excess, lowest, 0.0))


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


def _standard_error(data: np.ndarray) -> float:
    """Return s/√n: NaN for one value, 0 for values that coincide but for rounding."""
    if len(data) < 2:
        return math.nan
    error = float(data.std(ddof=1)) / math.sqrt(len(data))
    return error if error > ROUNDING * float(np.abs(data).max()) else 0.0


def _t(level: float, freedom: float) -> float:
    return float(distributions.t.ppf(_upper(level), freedom))


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

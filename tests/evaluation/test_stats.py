import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from everlearn.errors import ConfigError
from everlearn.evaluation import stats


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (10, 10), (57, 200)])
def test_wilson_equals_scipy(right, n):
    expected = scipy_stats.binomtest(right, n).proportion_ci(method="wilson")
    found = stats.wilson_interval(right, n)
    assert (found.value, found.low, found.high) == pytest.approx((right / n, expected.low, expected.high), abs=1e-12)


def test_mean_interval_equals_scipy():
    values = [0.3, 0.5, 0.45, 0.9]
    low, high = scipy_stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy_stats.sem(values))
    found = stats.mean_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_one_value_has_no_interval():
    found = stats.mean_interval([0.4])
    assert found.value == 0.4
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_outcome_interval_chooses_by_the_outcomes():
    assert stats.outcome_interval([1, 0, 1, 1]) == stats.wilson_interval(3, 4)
    assert stats.outcome_interval([0.5, -1.0]) == stats.mean_interval([0.5, -1.0])


def test_paired_binary_difference_by_hand():
    before = [1] * 6 + [0] * 4
    after = [1] * 3 + [0] * 3 + [1] + [0] * 3  # 3 lost, 1 gained
    found = stats.paired_difference(before, after)
    gained, lost = 2 / 12, 4 / 12
    half = 1.959964 * math.sqrt((gained + lost - (gained - lost) ** 2) / 12)
    assert found.difference == pytest.approx(-0.2)
    assert (found.low, found.high) == pytest.approx((gained - lost - half, gained - lost + half), abs=1e-6)
    assert found.p_value == pytest.approx(scipy_stats.binomtest(1, 4).pvalue)
    assert (found.n, found.n_lost, found.n_gained, found.discordance) == (10, 3, 1, 0.4)
    assert found.test == "exact McNemar"


def test_no_discordant_pair_still_has_a_width():
    found = stats.paired_difference([1] * 50 + [0] * 50, [1] * 50 + [0] * 50)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.low == pytest.approx(-found.high)
    assert 0.01 < found.high < 0.05


def test_paired_continuous_difference_equals_scipy():
    rng = np.random.default_rng(0)
    before = rng.normal(size=30)
    after = before + rng.normal(0.3, 0.5, size=30)
    expected = scipy_stats.ttest_rel(after, before)
    found = stats.paired_difference(before, after)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.test == "paired t"


def test_paired_t_p_without_spread():
    assert stats.paired_t_p([0.0, 0.0]) == 1.0
    assert stats.paired_t_p([0.5, 0.5]) == 0.0
    assert math.isnan(stats.paired_t_p([0.5]))


@pytest.mark.parametrize(("share", "most"), [(0.02, 1.0), (0.2, 0.975)])
def test_paired_interval_covers_the_true_difference(share, most):
    """2,000 simulated comparisons of 80 items: `share` of them lost and half of it gained."""
    rng = np.random.default_rng(1)
    lost, gained = rng.multinomial(80, [share, share / 2, 1 - 1.5 * share], size=2000)[:, :2].T
    covered = 0
    for n_lost, n_gained in zip(lost, gained, strict=True):
        interval = stats._binary_difference(80, int(n_gained), int(n_lost), 0.95)
        covered += interval.low <= -share / 2 <= interval.high
    assert 0.935 <= covered / 2000 <= most


def test_combined_interval_covers_the_mean_of_several_tasks():
    rng = np.random.default_rng(2)
    shares = np.array([0.05, 0.5, 0.95])
    right = rng.binomial(40, shares, size=(2000, 3))
    found = [stats.combine_intervals([stats.wilson_interval(int(k), 40) for k in row]) for row in right]
    covered = np.mean([interval.low <= shares.mean() <= interval.high for interval in found])
    assert 0.935 <= covered <= 0.975


def test_combining_equal_parts_narrows_by_the_root_of_their_number():
    part = stats.Interval(0.5, 0.4, 0.7)
    found = stats.combine_intervals([part] * 4)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.45, 0.6))


def test_difference_of_intervals_is_square_and_add():
    found = stats.difference_of_intervals(stats.Interval(0.5, 0.4, 0.53), stats.Interval(0.6, 0.56, 0.7))
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1 - 0.05, 0.1 + math.hypot(0.1, 0.1)))


@pytest.mark.parametrize(("tolerance", "discordance", "loss"), [(0.05, 0.1, 0.0), (0.02, 0.2, 0.08), (0.1, 0.0, 0.0)])
def test_items_needed_reaches_its_power(tolerance, discordance, loss):
    """With n items the interval excludes the tolerance in about 80% of simulated comparisons; n / 2 are too few."""
    n = stats.items_needed(tolerance, discordance, loss)
    rng = np.random.default_rng(3)

    def power(n_items: int) -> float:
        lost_share, gained_share = (discordance + loss) / 2, (discordance - loss) / 2
        drawn = rng.multinomial(n_items, [lost_share, gained_share, 1 - lost_share - gained_share], size=2000)
        intervals = [stats._binary_difference(n_items, int(up), int(down), 0.95) for down, up, _ in drawn]
        return float(np.mean([not -found.high <= tolerance <= -found.low for found in intervals]))

    assert power(n) >= 0.75
    assert power(n // 2) < 0.75


def test_items_needed_knows_its_limits():
    assert stats.items_needed(0.02, 0.1, loss=0.02) is None
    assert stats.items_needed(0.01, 0.1) > stats.items_needed(0.02, 0.1) > stats.items_needed(0.02, 0.05)
    assert stats.items_needed(0.0, 0.1, loss=0.1) > 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.wilson_interval(3, 2),
        lambda: stats.wilson_interval(0, 0),
        lambda: stats.mean_interval([]),
        lambda: stats.mean_interval([1.0, math.nan]),
        lambda: stats.paired_difference([1, 0], [1]),
        lambda: stats.combine_intervals([]),
        lambda: stats.items_needed(-0.1, 0.1),
        lambda: stats.mean_interval([0.1, 0.2], level=95),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(ConfigError, match="Got"):
        call()

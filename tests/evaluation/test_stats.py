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


@pytest.mark.parametrize("values", [[0.5, 0.5], [0.1 + 0.2, 0.3, 0.3]])
def test_values_that_coincide_have_no_interval(values):
    """They have no spread to judge by: two scores of few items coincide by chance. The second differ by rounding."""
    found = stats.mean_interval(values)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_outcome_interval_chooses_by_the_outcomes():
    assert stats.outcome_interval([1, 0, 1, 1]) == stats.wilson_interval(3, 4)
    assert stats.outcome_interval([0.5, -1.0]) == stats.mean_interval([0.5, -1.0])
    shares = stats.outcome_interval([0.5, 1.0, 1.0, 1.0], stats.SHARE)
    assert (shares.low, shares.high) == (stats.mean_interval([0.5, 1.0, 1.0, 1.0]).low, 1.0)


def test_the_range_of_a_score_follows_from_its_name():
    assert stats.range_of("exact_match") == (0.0, 1.0)
    assert stats.range_of("accuracy", change=True) == (-1.0, 1.0)
    assert stats.range_of("matthews", change=True) == (-2.0, 2.0)
    assert stats.range_of("token_log_likelihood") == (-math.inf, 0.0)
    assert stats.range_of("negative_mse", change=True) == (-math.inf, math.inf)


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
    assert stats.paired_t_p([0.5, 0.5]) == 0.5  # the sign test's
    assert stats.paired_t_p([0.1 + 0.2, 0.3, 0.3]) == 0.25  # rounding is no spread
    assert math.isnan(stats.paired_t_p([0.5]))
    assert stats.paired_t_p([1.0, 1.0001] * 500) > 0


def test_what_did_not_move_at_all_is_sure():
    found = stats.paired_difference([-0.5, -0.25], [-0.5, -0.25])
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_one_seed_is_compared_by_its_items():
    assert stats.paired_seeds([[1, 0, 1]], [[1, 1, 0]]) == stats.paired_difference([1, 0, 1], [1, 1, 0])


def test_seeds_and_items_both_count_by_hand():
    before = [[1, 1, 0, 0], [1, 0, 0, 0]]
    after = [[1, 1, 1, 1], [1, 1, 1, 0]]
    found = stats.paired_seeds(before, after)
    more = np.array([0.0, 0.5, 1.0, 0.5, 1.0, -1.0])
    of_seeds = np.std([2 / 6, 2 / 6], ddof=1) / math.sqrt(2)
    half = math.hypot(12.7062 * of_seeds, 1.959964 * more.std() / math.sqrt(6))
    assert found.difference == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((more.mean() - half, more.mean() + half), abs=1e-6)
    assert (found.n, found.n_lost, found.n_gained, found.test) == (4, 0, 3, "seeds × items")
    at_p = stats.paired_seeds(before, after, level=1 - found.p_value)
    assert at_p.low == pytest.approx(0, abs=1e-9)


def test_two_seeds_that_coincide_are_as_unsure_as_their_items():
    before, after = [[1] * 25 + [0] * 25, [1] * 30 + [0] * 20], [[1] * 26 + [0] * 24, [1] * 31 + [0] * 19]
    found = stats.paired_seeds(before, after)
    assert found.difference == pytest.approx(0.02)
    assert found.low < 0 < found.high
    assert found.p_value > 0.3


def test_seeds_with_real_numbers_are_compared_too():
    rng = np.random.default_rng(4)
    before = rng.normal(-2.0, 0.5, size=(3, 40))
    found = stats.paired_seeds(before, before + rng.normal(0.3, 0.1, size=(3, 1)) + rng.normal(0, 0.2, size=(3, 40)))
    assert 0 < found.p_value < 0.2
    still = stats.paired_seeds(before, before)
    assert (still.low, still.high, still.p_value) == (0.0, 0.0, 1.0)
    shifted = stats.paired_seeds([[0.5, 0.75]] * 2, [[0.25, 0.5]] * 2)  # no spread of any kind
    assert math.isnan(shifted.low)
    assert math.isnan(shifted.p_value)


def test_two_seeds_keep_the_level():
    """300 comparisons of 20 items without a difference, the same items change in both seeds: 1 in 20 at most."""
    rng = np.random.default_rng(6)
    change = np.sign(rng.random((300, 1, 20)) - 0.5) * (rng.random((300, 1, 20)) < 0.2) * np.ones((1, 2, 1))
    p = [stats.paired_seeds((one < 0).astype(float), (one > 0).astype(float)).p_value for one in change]
    assert np.mean(np.array(p) < 0.05) <= 0.05
    assert min(p) > 0


def test_an_interval_over_seeds_holds_the_items_too_and_stays_within_its_range():
    part = stats.Interval(0.5, 0.4, 0.7)
    assert stats.seeds_interval([part]) == part
    same = stats.seeds_interval([part, part], stats.SHARE)
    assert (same.value, same.low, same.high) == pytest.approx((0.5, 0.4, 0.7))
    three = stats.seeds_interval([part, stats.Interval(0.6, 0.5, 0.7), stats.Interval(0.55, 0.45, 0.7)])
    half = stats.mean_interval([0.5, 0.6, 0.55]).high - 0.55
    assert (three.low, three.high) == pytest.approx((0.55 - math.hypot(half, 0.1), 0.55 + math.hypot(half, 0.15)))
    apart = stats.seeds_interval([stats.Interval(0.9, 0.8, 1.0), stats.Interval(1.0, 0.9, 1.0)], stats.SHARE)
    assert (apart.low, apart.high) == (pytest.approx(0.95 - math.hypot(12.7062 * 0.05, 0.1), abs=1e-4), 1.0)
    alone = stats.seeds_interval([stats.Interval(x, math.nan, math.nan) for x in (0.4, 0.5, 0.6)])
    assert alone == stats.mean_interval([0.4, 0.5, 0.6])


def test_the_highest_of_several_has_an_interval_that_allows_for_the_choice():
    """The true share is 0.7 in all of 20 scorings of 50 items; the interval of the best one alone misses it often."""
    rng = np.random.default_rng(7)
    own, allowing = 0, 0
    for right in rng.binomial(50, 0.7, size=(300, 20)).tolist():
        found = stats.highest_interval(lambda level, r=right: [stats.wilson_interval(k, 50, level) for k in r], 20)
        assert found.value == max(right) / 50
        allowing += found.low <= 0.7 <= found.high
        own += stats.wilson_interval(max(right), 50).low <= 0.7
    assert allowing / 300 >= 0.95
    assert own / 300 < 0.8


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
        lambda: stats.paired_seeds([[1, 0], [1]], [[1, 0], [1, 0]]),
        lambda: stats.paired_seeds([[1, 0], [1, 0]], [[1, 0]]),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(ConfigError, match="Got"):
        call()


def test_the_jackknife_of_a_mean_is_student_s_interval():
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    without = [(sum(values) - value) / 4 for value in values]
    wanted = stats.mean_interval(values)
    found = stats.jackknife_interval(wanted.value, without)
    assert (found.low, found.high) == (pytest.approx(wanted.low), pytest.approx(wanted.high))
    assert math.isnan(stats.jackknife_interval(1.0, [1.0, 1.0, 1.0]).low)
    assert math.isnan(stats.jackknife_interval(1.0, [1.0]).low)
    assert stats.jackknife_interval(0.9, [1.0, 0.5, 0.9], (0.0, 1.0)).high == 1.0

"""Holm, Friedman and Nemenyi against numbers worked out by hand or by SciPy."""

import math

import pytest
from scipy import stats

from everlearn.bench.ranks import Ranks, holm, rank
from everlearn.errors import ConfigError


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    corrected = holm([math.nan, 0.02])
    assert math.isnan(corrected[0])
    assert corrected[1] == pytest.approx(0.02)


def test_friedman_is_scipys_also_with_ties():
    scores = [[0.9, 0.5, 0.7], [0.8, 0.8, 0.6], [0.7, 0.2, 0.2], [0.9, 0.1, 0.5]]
    found = rank(["a", "b", "c"], scores)
    expected = stats.friedmanchisquare(*zip(*scores, strict=True))
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.mean == pytest.approx((1.125, 2.5, 2.375))


def test_the_critical_difference_is_demsars():
    """Demšar 2006, table 5: q_0.05 of four classifiers is 2.569; on 14 data sets CD = 2.569·√(4·5/(6·14)) = 1.25."""
    found = rank(list("abcd"), [[4, 3, 2, 1]] * 14)
    assert found.critical == pytest.approx(2.569 * math.sqrt(20 / 84), abs=1e-3)


def test_groups_are_the_longest_that_cannot_be_told_apart():
    ranks = Ranks(("a", "b", "c", "d"), (1.0, 1.8, 2.9, 4.3), 10, 0.0, 1.0, 1.3)
    assert ranks.groups() == [("a", "b"), ("b", "c")]
    assert Ranks(("a", "b"), (1.0, 2.0), 10, 0.0, 1.0, 0.5).groups() == []


def test_all_alike_is_no_difference():
    assert rank(["a", "b"], [[1, 1], [2, 2]]).p_value == pytest.approx(1.0)


def test_too_little_is_refused():
    with pytest.raises(ConfigError, match="ranks: need"):
        rank(["a", "b"], [[1, 2]])

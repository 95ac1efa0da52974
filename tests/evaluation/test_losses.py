"""One-sided tests and Holm's step-down, beside slow references."""

import itertools
import math

import pytest
from scipy import stats

from everlearn.evaluation.losses import holm, loss_p_value
from everlearn.evaluation.stats import paired_difference


def outcomes(n_lost: int, n_gained: int, n: int) -> tuple[list[float], list[float]]:
    same = [1.0] * (n - n_lost - n_gained)
    return [1.0] * n_lost + [0.0] * n_gained + same, [0.0] * n_lost + [1.0] * n_gained + same


@pytest.mark.parametrize(("n_lost", "n_gained"), [(0, 0), (3, 0), (0, 3), (5, 2), (4, 4)])
def test_mid_p_is_the_share_of_coin_flips_that_lose_more(n_lost: int, n_gained: int) -> None:
    flips = [sum(coins) for coins in itertools.product((0, 1), repeat=n_lost + n_gained)]
    wanted = sum((k > n_lost) + 0.5 * (k == n_lost) for k in flips) / len(flips) if n_lost + n_gained else 1.0
    assert loss_p_value(*outcomes(n_lost, n_gained, 20)) == pytest.approx(wanted)


def test_test_with_a_margin_belongs_to_the_interval() -> None:
    before, after = outcomes(12, 3, 100)
    interval = paired_difference(before, after, level=0.9)
    assert loss_p_value(before, after, -interval.high) == pytest.approx(0.05)


def test_other_items_by_student() -> None:
    before, after = [0.0, -0.1, -0.2, 0.3], [-1.0, -0.4, -0.9, 0.2]
    wanted = stats.ttest_rel(before, after, alternative="greater").pvalue
    assert loss_p_value(before, after) == pytest.approx(wanted)
    shifted = [value + 0.2 for value in after]
    assert loss_p_value(before, after, 0.2) == pytest.approx(loss_p_value(before, shifted))
    assert loss_p_value([-1.0, -2.0], [-1.5, -2.5], 0.02) == 0.0
    assert loss_p_value([-1.0, -2.0], [-1.5, -2.5], 0.6) == 1.0
    assert loss_p_value([-1.0], [-5.0]) is None


def test_holm_beside_its_definition() -> None:
    p_values = [0.04, 0.01, 0.03, 0.5]
    assert holm(p_values, 4) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert holm(p_values, 6) == pytest.approx([0.16, 0.06, 0.15, 1.0])
    assert holm([], 3) == []
    assert all(math.isclose(a, 1.0) for a in holm([0.9, 0.8], 2))

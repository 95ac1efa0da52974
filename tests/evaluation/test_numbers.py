import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from everlearn.evaluation.numbers import pearson, pearson_without, pseudo_values, spearman, spearman_without
from everlearn.evaluation.stats import jackknife_interval, mean_interval
from everlearn.seeds import seed_for

CASES = {"pearson": (pearson, pearson_without, pearsonr), "spearman": (spearman, spearman_without, spearmanr)}


def drawn(n, name, ties=False):
    random = np.random.default_rng(seed_for("numbers", name))
    right = random.normal(size=n)
    guessed = 100 + 0.1 * right + 0.1 * random.normal(size=n)
    return (right.round(), guessed.round(1)) if ties else (right, guessed)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_correlations_are_those_of_scipy_with_all_items_and_without_each(name, ties):
    measure, without, reference = CASES[name]
    right, guessed = drawn(15, name, ties)
    assert measure(right, guessed) == pytest.approx(reference(right, guessed).statistic, abs=1e-9)
    expected = [reference(np.delete(right, i), np.delete(guessed, i)).statistic for i in range(15)]
    assert without(right, guessed) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_vary_correlates_with_nothing(name):
    measure, without, _ = CASES[name]
    assert measure(np.array([1.0, 2.0, 3.0]), np.full(3, 0.1)) == 0.0
    assert without(np.full(3, 0.1), np.array([1.0, 2.0, 3.0])).tolist() == [0.0, 0.0, 0.0]
    assert without(np.array([1.0, 1.0, 2.0]), np.array([3.0, 5.0, 4.0]))[2] == 0.0  # without the one that differs


def test_the_parts_of_items_are_as_sure_as_the_jackknife():
    right, guessed = drawn(40, "parts")
    value, without = pearson(right, guessed), pearson_without(right, guessed)
    parts = pseudo_values(value, without)
    of_parts, whole = mean_interval(parts), jackknife_interval(value, without)
    assert of_parts.value == pytest.approx(value, abs=0.01)
    assert of_parts.high - of_parts.low == pytest.approx(whole.high - whole.low, rel=1e-6)

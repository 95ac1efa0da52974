"""How well numbers were answered: correlations and errors, and what each item has to do with them. Pure functions."""

import numpy as np
from scipy.stats import rankdata

LEAST = 1e-12  # relative: numbers that differ by less, by rounding, count as equal


def pearson(right: np.ndarray, guessed: np.ndarray) -> float:
    """Return Pearson's correlation of two lists of numbers [n]; 0 where it isn't defined: one of them doesn't vary."""
    one, other = right - right.mean(), guessed - guessed.mean()
    return float(_ratio(one @ other, one @ one, other @ other, _floor(right, guessed)))


def pearson_without(right: np.ndarray, guessed: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation without each item [n]. Cost: O(n)."""
    n = len(right)
    one, other = right - right.mean(), guessed - guessed.mean()
    # sums of squares about the mean of n - 1 numbers, from those about the mean of all: x_i^2 (1 + 1 / (n - 1)) less
    share = n / (n - 1)
    return _ratio(
        one @ other - share * one * other,
        one @ one - share * one * one,
        other @ other - share * other * other,
        _floor(right, guessed),
    )


def spearman(right: np.ndarray, guessed: np.ndarray) -> float:
    """Return Spearman's correlation: Pearson's of the ranks, of equal numbers their mean rank."""
    return pearson(rankdata(right), rankdata(guessed))


def spearman_without(right: np.ndarray, guessed: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation without each item [n]. Cost: O(n^2) comparisons, O(n) memory."""
    ranks = rankdata(right), rankdata(guessed)
    return np.array([pearson(*(_ranks_without(own, item) for own in ranks)) for item in range(len(right))])


def pseudo_values(value: float, without: np.ndarray) -> list[float]:
    """Return what each item brings to a score that is no mean over items: n θ - (n - 1) θ_i, θ_i the score without it.

    Their mean is the score but for a bias of O(1 / n), and their spread that of the score (`jackknife_interval`): so
    two models are compared item by item on them as on any outcome.

    Source: Tukey 1958; Miller 1974, The jackknife: a review.
    """
    n = len(without)
    return (n * value - (n - 1) * without).tolist()


def _ranks_without(ranks: np.ndarray, item: int) -> np.ndarray:
    """Return the ranks that the others have once an item is gone."""
    others = np.delete(ranks, item)
    return others - (others > ranks[item]) - 0.5 * (others == ranks[item])


def _ratio(products: np.ndarray, first: np.ndarray, second: np.ndarray, floor: tuple[float, float]) -> np.ndarray:
    """Return products / sqrt(first * second), and 0 where one of the two is but rounding."""
    varies = (first > floor[0]) & (second > floor[1])
    scale = np.sqrt(np.where(varies, first, 1.0)) * np.sqrt(np.where(varies, second, 1.0))
    return np.clip(np.where(varies, products / scale, 0.0), -1.0, 1.0)


def _floor(right: np.ndarray, guessed: np.ndarray) -> tuple[float, float]:
    first, second = (float(len(own) * (LEAST * np.abs(own).max()) ** 2) for own in (right, guessed))
    return first, second

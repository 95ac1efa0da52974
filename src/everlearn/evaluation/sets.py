"""Several labels a text: F1 over them, and from which chance on a label is taken. Pure functions."""

from collections.abc import Sequence

import numpy as np

HALF = 0.5  # the threshold where none was chosen
EACH, ONE = "each", "one"


def micro_f1(right: np.ndarray, taken: np.ndarray) -> float:
    """Return F1 over all labels of all items together: 2 tp / (2 tp + fp + fn); 1 where there is none, and none is
    taken. right, taken: bool [n_items, n_labels]."""  # fmt: skip
    return float(_f1((right & taken).sum(), right.sum() + taken.sum()))


def macro_f1(right: np.ndarray, taken: np.ndarray) -> float:
    """Return the mean of each label's F1, over the labels that any item has or was given; 1 where there is none."""
    return float(_macro((right & taken).sum(0), right.sum(0) + taken.sum(0)))


def micro_f1_without(right: np.ndarray, taken: np.ndarray) -> list[float]:
    """Return the micro F1 without each item [n]."""
    both, sizes = (right & taken).sum(1), right.sum(1) + taken.sum(1)
    return _f1(both.sum() - both, sizes.sum() - sizes).tolist()


def macro_f1_without(right: np.ndarray, taken: np.ndarray) -> list[float]:
    """Return the macro F1 without each item [n]. Cost: n_items times n_labels numbers."""
    both, sizes = right & taken, right.astype(int) + taken
    return _macro(both.sum(0) - both, sizes.sum(0) - sizes).tolist()


def item_f1(right: np.ndarray, taken: np.ndarray) -> list[float]:
    """Return each item's own F1 over its labels [n]."""
    return _f1((right & taken).sum(1), right.sum(1) + taken.sum(1)).tolist()


def best_thresholds(chances: np.ndarray, right: np.ndarray, per_label: bool) -> list[float]:
    """Return from which chance on each label is taken, so that F1 is highest: of each label, or over all together.

    Candidates lie halfway between neighbouring chances; of several that are as good, the one nearest to 0.5 is taken.
    A label that no item has, or all have, tells nothing: 0.5.

    Args:
        chances: [n_items, n_labels]. right: bool, of the same shape.
    """
    if not per_label:
        return [_best(chances.ravel(), right.ravel())] * chances.shape[1]
    return [_best(chances[:, label], right[:, label]) for label in range(chances.shape[1])]


def taken_from(chances: Sequence[Sequence[float]], thresholds: Sequence[float]) -> np.ndarray:
    """Return which labels are taken: bool [n_items, n_labels]."""
    return np.asarray(chances, dtype=float).reshape(-1, len(thresholds)) >= np.asarray(thresholds)


def _best(chances: np.ndarray, right: np.ndarray) -> float:
    if right.all() or not right.any():
        return HALF
    order = np.argsort(-chances, kind="stable")
    sorted_chances, hits = chances[order], right[order].cumsum()
    ends = np.flatnonzero(np.append(sorted_chances[1:] < sorted_chances[:-1], True))  # equal chances are taken together
    f1 = 2 * hits[ends] / (ends + 1 + right.sum())
    following = np.append(sorted_chances[1:], 0.0)[ends]
    candidates = (sorted_chances[ends] + following) / 2
    candidates = np.where((following <= HALF) & (sorted_chances[ends] >= HALF), HALF, candidates)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(candidates[best[np.abs(candidates[best] - HALF).argmin()]])


def _f1(both: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return 2 both / sizes, 1 where there is nothing to take and nothing was taken."""
    return np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), 1.0)


def _macro(both: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the last axis, labels that nothing is known of aside."""
    counted = (sizes > 0).sum(-1)
    sums = np.where(sizes > 0, _f1(both, sizes), 0.0).sum(-1)
    return np.where(counted > 0, sums / np.maximum(counted, 1), 1.0)

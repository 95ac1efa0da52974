import numpy as np
import pytest
from sklearn.metrics import f1_score

from everlearn.evaluation.sets import (
    best_thresholds,
    item_f1,
    macro_f1,
    macro_f1_without,
    micro_f1,
    micro_f1_without,
    taken_from,
)

RANDOM = np.random.default_rng(0)
RIGHT, TAKEN = RANDOM.random((12, 4)) < 0.4, RANDOM.random((12, 4)) < 0.4


def by_sklearn(average, right=RIGHT, taken=TAKEN):
    present = (right | taken).any(0)  # a label that is nowhere tells nothing
    return f1_score(right[:, present], taken[:, present], average=average, zero_division=1.0)


@pytest.mark.parametrize(
    ("measure", "without", "average"),
    [(micro_f1, micro_f1_without, "micro"), (macro_f1, macro_f1_without, "macro")],
)
def test_f1_is_scikit_learn_s_with_all_items_and_without_each(measure, without, average):
    assert measure(RIGHT, TAKEN) == pytest.approx(by_sklearn(average))
    expected = [by_sklearn(average, np.delete(RIGHT, i, 0), np.delete(TAKEN, i, 0)) for i in range(12)]
    assert without(RIGHT, TAKEN) == pytest.approx(expected)


def test_of_an_item_and_where_there_is_nothing_to_take():
    right, taken = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], bool), np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0]], bool)
    assert item_f1(right, taken) == pytest.approx([2 / 3, 1.0, 0.0])
    nothing = np.zeros((3, 2), bool)
    assert (micro_f1(nothing, nothing), macro_f1(nothing, nothing)) == (1.0, 1.0)


def test_thresholds_are_the_best_there_are_and_near_a_half():
    chances, right = RANDOM.random((30, 3)), RANDOM.random((30, 3)) < 0.3
    every = np.linspace(0, 1, 2001)
    for label, threshold in enumerate(best_thresholds(chances, right, per_label=True)):
        best = max(micro_f1(right[:, [label]], chances[:, [label]] >= one) for one in every)
        assert micro_f1(right[:, [label]], chances[:, [label]] >= threshold) == pytest.approx(best)
    (threshold, *others) = best_thresholds(chances, right, per_label=False)
    assert others == [threshold] * 2
    assert micro_f1(right, taken_from(chances, [threshold] * 3)) == pytest.approx(
        max(micro_f1(right, chances >= one) for one in every)
    )


@pytest.mark.parametrize(
    ("chances", "right", "threshold"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),
        ([0.2, 0.9], [0, 1], 0.5),  # anything from 0.2 to 0.9 would do
        ([0.3, 0.3, 0.1], [1, 0, 0], 0.2),  # equal chances are taken together
        ([0.1, 0.2], [0, 0], 0.5),
        ([0.1, 0.2], [1, 1], 0.5),
    ],
)
def test_a_threshold_by_hand(chances, right, threshold):
    found = best_thresholds(np.array(chances)[:, None], np.array(right, bool)[:, None], per_label=True)
    assert found == pytest.approx([threshold])

import numpy as np
import pytest

from everlearn.errors import ConfigError, StateError
from everlearn.evaluation import metrics

NAN = float("nan")
# Learned in the order of the columns; the upper triangle holds scores of tasks to come.
SCORES = np.array([[0.8, 0.3, 0.2], [0.6, 0.9, 0.4], [0.5, 0.95, 0.7]])
BASELINE = np.array([0.1, 0.2, 0.25])


def test_average_accuracy_is_the_mean_of_the_last_row():
    assert metrics.average_accuracy(SCORES) == pytest.approx((0.5 + 0.95 + 0.7) / 3)


def test_backward_transfer_by_hand():
    assert metrics.backward_transfer(SCORES) == pytest.approx(((0.5 - 0.8) + (0.95 - 0.9)) / 2)


def test_forward_transfer_by_hand():
    assert metrics.forward_transfer(SCORES, BASELINE) == pytest.approx(((0.3 - 0.2) + (0.4 - 0.25)) / 2)


def test_forgetting_takes_the_best_step_from_learning_on():
    scores = np.array([[0.8, 0.99, 0.2], [0.85, 0.9, 0.4], [0.5, 0.95, 0.7]])
    # task 0 was best after step 1; the 0.99 of task 1 before it was learned does not count
    assert metrics.forgetting(scores) == pytest.approx(((0.85 - 0.5) + (0.9 - 0.95)) / 2)


def test_learning_accuracy_is_the_mean_diagonal():
    assert metrics.learning_accuracy(SCORES) == pytest.approx((0.8 + 0.9 + 0.7) / 3)


def test_plasticity_and_stability_are_ratios():
    joint = np.array([0.8, 1.0, 0.5])
    assert metrics.plasticity(SCORES, joint) == pytest.approx((1.0 + 0.9 + 1.4) / 3)
    assert metrics.stability(SCORES) == pytest.approx((0.5 / 0.8 + 0.95 / 0.9) / 2)


def test_average_over_seen_grows_with_the_tasks():
    assert metrics.average_over_seen(SCORES) == pytest.approx([0.8, 0.75, (0.5 + 0.95 + 0.7) / 3])


def test_average_over_seen_marks_a_row_with_a_gap():
    curve = metrics.average_over_seen(np.array([[0.8, NAN], [NAN, 0.9]]))
    assert curve[0] == 0.8
    assert np.isnan(curve[1])


def test_repeated_rounds_measure_from_the_first_learning():
    scores = np.array([[0.8, 0.1], [0.4, 0.9], [0.7, 0.6], [0.5, 0.85]])  # a, b, a, b
    assert metrics.backward_transfer(scores, [0, 1]) == pytest.approx(((0.5 - 0.8) + (0.85 - 0.9)) / 2)
    assert metrics.forgetting(scores, [0, 1]) == pytest.approx(((0.8 - 0.5) + (0.9 - 0.85)) / 2)
    assert metrics.learning_accuracy(scores, [0, 1]) == pytest.approx(0.85)


def test_only_the_scores_that_a_formula_needs_must_be_there():
    lower = np.where(np.tri(3, dtype=bool), SCORES, NAN)
    assert metrics.backward_transfer(lower) == pytest.approx(metrics.backward_transfer(SCORES))
    assert metrics.forgetting(lower) == pytest.approx(0.125)
    gap = lower.copy()
    gap[1, 0] = NAN
    assert metrics.backward_transfer(gap) == pytest.approx(metrics.backward_transfer(SCORES))
    with pytest.raises(StateError, match="forgetting: the matrix is incomplete"):
        metrics.forgetting(gap)


@pytest.mark.parametrize(
    ("metric", "cell"),
    [
        (metrics.average_accuracy, (2, 1)),
        (metrics.backward_transfer, (0, 0)),
        (metrics.forgetting, (2, 0)),
        (metrics.learning_accuracy, (1, 1)),
        (metrics.stability, (2, 0)),
    ],
)
def test_an_incomplete_matrix_is_refused_by_name(metric, cell):
    scores = SCORES.copy()
    scores[cell] = NAN
    with pytest.raises(StateError, match=f"{metric.__name__}: the matrix is incomplete"):
        metric(scores)


def test_forward_transfer_refuses_unscored_tasks_to_come():
    lower = np.where(np.tri(3, dtype=bool), SCORES, NAN)
    with pytest.raises(StateError, match="forward_transfer: the matrix is incomplete"):
        metrics.forward_transfer(lower, BASELINE)
    with pytest.raises(StateError, match="score before training"):
        metrics.forward_transfer(SCORES, np.full(3, NAN))


def test_one_task_has_no_transfer():
    one = np.array([[0.7]])
    assert metrics.average_accuracy(one) == 0.7
    for value in (metrics.backward_transfer(one), metrics.forgetting(one), metrics.forward_transfer(one, [0.1])):
        assert np.isnan(value)


def test_ratios_refuse_scores_that_are_not_above_zero():
    with pytest.raises(StateError, match="needs scores above 0"):
        metrics.plasticity(SCORES, np.array([0.8, 0.0, 0.5]))
    with pytest.raises(StateError, match="needs scores above 0"):
        metrics.stability(-SCORES)


@pytest.mark.parametrize("learned_at", [[0, 1], [0, 1, 3], [-1, 0, 1]])
def test_learned_at_must_fit(learned_at):
    with pytest.raises(ConfigError, match="learned_at"):
        metrics.average_accuracy(SCORES, learned_at)


def test_scores_must_be_a_matrix():
    with pytest.raises(ConfigError, match="is no matrix"):
        metrics.average_accuracy(np.array([0.1, 0.2]))
    with pytest.raises(ConfigError, match="wrong shape"):
        metrics.forward_transfer(SCORES, [0.1])


def test_success_rate_counts_the_returns_that_reach_the_goal():
    assert metrics.success_rate([1.0, 0.0, 2.0, 0.99]) == 0.5
    assert metrics.success_rate([5.0, 20.0], threshold=10) == 0.5
    with pytest.raises(ConfigError, match="success_rate"):
        metrics.success_rate([])

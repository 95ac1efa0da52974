"""Weights of experts that answer together: fitted without gradients, never worse than the best single one."""

import pytest

from everlearn.experts.composing import MOST_CALLS, fit_weights


def bowl(*wanted: float):
    """Return a loss that is lowest at these weights."""
    return lambda weights: sum((one - other) ** 2 for one, other in zip(weights, wanted, strict=True))


def test_weights_come_near_to_the_best_ones():
    found = fit_weights(bowl(0.7, -0.4), [0.9, 0.8])
    assert found == pytest.approx([0.7, -0.4], abs=0.1)
    assert fit_weights(bowl(9.0, 0.0), [0.9, 0.8])[0] <= 1.5


def test_a_single_expert_or_none_at_all_can_win():
    def steep(best: list[float]):
        return lambda weights: 0.0 if weights == best else 10.0

    for best in ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]):
        assert fit_weights(steep(best), [0.5, 0.4, 0.3]) == best


def test_it_is_never_worse_than_what_it_began_from_and_calls_the_loss_a_bounded_number_of_times():
    calls = []

    def rough(weights):
        calls.append(list(weights))
        return abs(hash(tuple(round(weight, 3) for weight in weights))) % 97 / 97

    found = fit_weights(rough, [0.5, -0.2], penalty=0.0)
    assert rough(found) <= min(rough(one) for one in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]))
    assert len(calls) <= 5 + MOST_CALLS + 6 + 5

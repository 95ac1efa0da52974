import math
import statistics

import pytest

from everlearn.functional.running import MOST_POINTS, Running, means_of, with_step


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_mean_and_deviation_are_those_of_all_values(offset):
    values = [offset + math.sin(i) for i in range(50)]
    running = Running()
    for value in values:
        running.add(value)
    assert running.mean == pytest.approx(statistics.fmean(values), rel=1e-12)
    assert running.deviation == pytest.approx(statistics.stdev(values), rel=1e-6)


def test_a_score_counts_deviations_and_is_0_where_nothing_differs():
    running = Running()
    assert running.score(3.0) == running.deviation == 0.0
    for value in (1.0, 2.0, 3.0):
        running.add(value)
    assert running.score(4.0) == 2.0
    alike = Running()
    for value in (0.7, 0.7, 0.7 + 1e-7):
        alike.add(value)
    assert alike.score(0.7 + 1e-7) == 0.0


@pytest.mark.parametrize("n", [1, 5, MOST_POINTS, MOST_POINTS + 1, 1000])
def test_a_curve_stays_short_and_loses_no_step(n):
    curve = {}
    for i in range(n):
        curve = with_step(curve, {"a": float(i), "b": 1.0})
    steps = curve["steps"].tolist()
    assert sum(steps) == n
    assert min(n, MOST_POINTS // 2) <= len(steps) <= MOST_POINTS
    assert set(steps[:-1]) <= {steps[0]}
    assert steps[-1] <= steps[0]
    assert means_of(curve) == {"a": (n - 1) / 2, "b": 1.0}
    done = 0
    for count, total in zip(steps, curve["a"].tolist(), strict=True):
        assert total == sum(range(done, done + int(count)))
        done += int(count)

"""Budgets, volumes and sizes against closed form."""

import pytest

from everlearn.errors import ConfigError
from everlearn.kinds.advice.sizing import Sizes, Timing, Volume, budget_text, fit_sizes, measure_timing, parse_budget
from everlearn.streams.schedule import apply_schedule
from everlearn.types import Stream
from support.tasks import prompt_task

PLENTY = Volume((1000, 1000), (500, 500, 500))  # two tasks: 2 steps, 3 scorings


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("1.5m", 90)])
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "0s", "-5m", "1d", "10 minutes"])
def test_bad_budgets(text):
    with pytest.raises(ConfigError, match="--budget: is no time"):
        parse_budget(text)


def test_budget_text_is_read_back_and_not_less():
    assert [budget_text(seconds) for seconds in (0.2, 90, 91, 3601)] == ["1s", "90s", "2m", "61m"]
    assert all(parse_budget(budget_text(seconds)) >= seconds for seconds in (0.2, 90, 91, 3601))


def test_volume_of_a_schedule():
    stream = Stream("made_up", (prompt_task(0, 12, 4), prompt_task(1, 10, 3)))
    assert Volume.of(apply_schedule(stream)) == Volume((12, 10), (4, 4, 3))
    again = Volume.of(apply_schedule(stream, rounds=2))
    assert again == Volume((12, 10, 12, 10), (4, 4, 3, 4, 3, 4, 3))
    assert again.within(Sizes(11, 3)) == Volume((11, 10, 11, 10), (3,) * 7)


def test_timing_leaves_the_warm_up_to_the_start():
    steps = [{"train_s": 9.0, "eval_s": 4.0}, {"train_s": 2.0, "eval_s": 1.0}]
    timing = measure_timing(20.0, steps, Volume((10, 10), (5, 5, 5)))
    assert timing == Timing(pytest.approx(20.0 - 4.0 - 1.5), pytest.approx(0.2), pytest.approx(0.1))
    assert timing.trial_s(Volume((10, 10), (5, 5, 5))) == pytest.approx(20.0)
    assert timing.trial_s(Volume((10, 10), (5, 5, 5)), cost=2.0) == pytest.approx(24.0)


def test_sizes_fill_the_budget_and_no_more():
    timing, costs = Timing(1.0, 0.01, 0.01), [1.0, 2.0, 1.0]
    sizes = fit_sizes(timing, PLENTY, costs, 60.0)
    # scoring takes a third: 3 trials × 3 scorings × 0.01 s × items ≤ 20 s; after 3 s of starts, training the rest:
    # (1 + 2 + 1) × 2 steps × 0.01 s × rows ≤ 37 s
    assert sizes == Sizes(rows=462, items=222)
    taken = sum(timing.trial_s(PLENTY.within(sizes), cost) for cost in costs)
    assert 59.5 < taken <= 60.0


def test_sizes_never_ask_for_more_than_there_is():
    assert fit_sizes(Timing(0.1, 0.0, 0.0), PLENTY, [1.0] * 5, 60.0) == Sizes(1000, 500)
    assert fit_sizes(Timing(0.1, 0.001, 0.001), Volume((9, 9), (4, 4, 4)), [1.0, 2.0], 60.0) == Sizes(9, 4)


def test_few_rows_leave_time_for_items():
    sizes = fit_sizes(Timing(0.0, 0.01, 0.1), Volume((80, 80), (900, 900, 900)), [1.0, 1.0], 120.0)
    assert sizes.rows == 80
    assert sizes.items == pytest.approx((120 - 3.2) / 0.6, abs=1)


def test_too_small_for_all_is_planned_for_the_first_ones():
    timing = Timing(1.0, 0.01, 0.0)
    smallest_s = timing.trial_s(PLENTY.within(Sizes(64, 20)))
    sizes = fit_sizes(timing, PLENTY, [1.0] * 10, 3.1 * smallest_s)
    assert 64 <= sizes.rows < 80
    assert fit_sizes(timing, PLENTY, [1.0] * 10, 1.9 * smallest_s) is None

"""The adaptive rate: highest at a drift, up while the loss rises, down else, within its bounds, resumed."""

import pytest

from everlearn.errors import ConfigError
from everlearn.learners.adaptive_rate import AdaptiveRate


def test_it_falls_on_a_quiet_stream_down_to_its_bound():
    rate = AdaptiveRate()
    found = [rate.observe(0.5, drift=False) for _ in range(1000)]
    assert found[0] == pytest.approx(0.998)
    assert found[349] == pytest.approx(0.998**350)
    assert found[-1] == rate.lowest


def test_it_is_highest_right_after_a_drift_and_falls_back():
    rate = AdaptiveRate()
    for _ in range(100):
        rate.observe(0.5, drift=False)
    assert rate.observe(0.5, drift=True) == rate.highest
    assert rate.observe(0.5, drift=False) == pytest.approx(rate.highest * 0.998)


def test_it_rises_while_recent_rows_lose_more_than_earlier_ones():
    rate = AdaptiveRate()
    for _ in range(300):
        rate.observe(0.5, drift=False)
    low = rate.factor
    found = [rate.observe(2.0, drift=False) for _ in range(40)]
    assert found == sorted(found)
    assert found[-1] > 2 * low
    late = [rate.observe(2.0, drift=False) for _ in range(2000)]  # the earlier rows come up to them: the trend is over
    assert late[-1] < late[600]
    assert all(rate.lowest <= factor <= rate.highest for factor in found)


def test_it_goes_on_from_its_state():
    losses = [0.1 * (n % 17) for n in range(90)]
    whole, first, second = AdaptiveRate(), AdaptiveRate(), AdaptiveRate()
    wanted = [whole.observe(loss, drift=n == 50) for n, loss in enumerate(losses)]
    for loss in losses[:40]:
        first.observe(loss, drift=False)
    second.load_state(first.state())
    assert [second.observe(loss, drift=n == 50) for n, loss in enumerate(losses[40:], 40)] == wanted[40:]


@pytest.mark.parametrize(
    "options", [{"up": 0.9}, {"down": 1.1}, {"lowest": 2.0}, {"highest": 0.5}, {"margin": -1}, {"n_before": 5}]
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=f"AdaptiveRate.{next(iter(options))}"):
        AdaptiveRate(**options)
    with pytest.raises(ConfigError, match=r"AdaptiveRate\.observe"):
        AdaptiveRate().observe(float("nan"), drift=False)

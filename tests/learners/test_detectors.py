"""Detectors notice what changes, in the direction asked for, and go on from their state as if never stopped."""

import json
import math
import random

import pytest
from river.drift import ADWIN, KSWIN
from river.drift import PageHinkley as RiverPageHinkley

from everlearn.config import build
from everlearn.errors import ConfigError, StateError
from everlearn.learners.detectors import Adwin, DriftDetector, Kswin, PageHinkley, error_of_loss
from everlearn.registry import names

METHODS = (Adwin(delta=0.002), PageHinkley(threshold=10.0), Kswin(alpha=0.0001))


def coin(n: int, *shares: float, seed: str = "coin") -> list[float]:
    """Return n errors of each share of errors in turn."""
    rng = random.Random(seed)
    return [float(rng.random() < share) for share in shares for _ in range(n)]


def detections(detector: DriftDetector, values: list[float]) -> list[int]:
    return [place for place, value in enumerate(values) if detector.update(value)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_jump_of_the_error_is_noticed_and_a_calm_error_is_not(method):
    found = detections(DriftDetector(method), coin(500, 0.1, 0.9))
    assert found
    assert 500 < found[0] < 600


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_falling_error_counts_only_in_both_directions(method):
    values = coin(500, 0.9, 0.1)
    assert detections(DriftDetector(method), values) == []
    assert detections(DriftDetector(method, direction="both"), values)


@pytest.mark.parametrize(
    ("method", "river"),
    [
        (Adwin(delta=0.01, clock=8), lambda seed: ADWIN(delta=0.01, clock=8)),
        (PageHinkley(threshold=5.0), lambda seed: RiverPageHinkley(threshold=5.0, delta=0.05, alpha=0.9999)),
        (Kswin(alpha=0.01), lambda seed: KSWIN(alpha=0.01, window_size=200, stat_size=60, seed=seed)),
    ],
    ids=["adwin", "page_hinkley", "kswin"],
)
def test_in_both_directions_it_tells_what_river_tells(method, river):
    detector = DriftDetector(method, direction="both")
    bare = river(detector.seed)
    values, found = coin(200, 0.2, 0.8, 0.3, 0.9), []
    for place, value in enumerate(values):
        bare.update(value)
        if bare.drift_detected:
            found.append(place)
    assert found
    assert detections(detector, values) == found


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("horizon", [100, 4096])
def test_stopped_anywhere_it_goes_on_bit_for_bit(method, horizon):
    horizon = max(horizon, 2 * method.window_size) if isinstance(method, Kswin) else horizon
    rng = random.Random("stop")
    values = [min(1.0, max(0.0, rng.gauss(mean, 0.2))) for mean in (0.2, 0.8, 0.4, 0.9) for _ in range(250)]
    whole = DriftDetector(method, direction="both", horizon=horizon)
    expected = detections(whole, values)
    for stop in (0, 1, 99, 100, 101, 251, 300, *expected, *(place + 1 for place in expected), 777):
        first = DriftDetector(method, direction="both", horizon=horizon)
        found = detections(first, values[:stop])
        state = json.loads(json.dumps(first.state()))
        assert len(state["values"]) < horizon
        second = DriftDetector(method, direction="both", horizon=horizon)
        second.load_state(state)
        found += [stop + place for place in detections(second, values[stop:])]
        assert found == expected
        assert second.state() == whole.state()


def test_a_detector_of_a_short_horizon_still_notices():
    assert detections(DriftDetector(PageHinkley(threshold=10.0), horizon=100), coin(2000, 0.1, 0.9))[0] < 2100


def test_a_window_that_the_horizon_never_fills_is_refused():
    with pytest.raises(ConfigError, match=r"detector.horizon: is out of range. Got 399"):
        DriftDetector(Kswin(), horizon=399)
    with pytest.raises(ConfigError, match=r"kswin.window_size: is out of range. Got 3000"):
        Kswin(window_size=3000)
    assert detections(DriftDetector(Kswin(alpha=1e-4), horizon=400), [0.0] * 1000 + [1.0] * 300)


def test_samples_depend_on_the_seed():
    assert DriftDetector(Kswin(), seed=0).seed != DriftDetector(Kswin(), seed=1).seed
    values = coin(300, 0.3, 0.6, 0.3, 0.6)
    found = [detections(DriftDetector(Kswin(alpha=0.05), seed=seed, direction="both"), values) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "0.5", None])
def test_a_value_outside_is_refused(value):
    with pytest.raises(ConfigError, match=r"DriftDetector\.update: is out of range"):
        DriftDetector(Adwin()).update(value)


def test_the_state_of_another_detector_is_refused():
    state = DriftDetector(Adwin()).state()
    with pytest.raises(StateError, match="the state is of another one"):
        DriftDetector(Adwin(delta=0.1)).load_state(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adwin", "delta": 0}, r"adwin\.delta: is out of range. Got 0"),
        ({"name": "adwin", "clock": 0}, r"adwin\.clock"),
        ({"name": "page_hinkley", "threshold": -1}, r"page_hinkley\.threshold"),
        ({"name": "page_hinkley", "tolerance": 2}, r"page_hinkley\.tolerance"),
        ({"name": "kswin", "window_size": 100}, r"kswin\.window_size: is out of range. Got 100"),
        ({"name": "adwinn"}, "Did you mean 'adwin'"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(options, message):
    with pytest.raises(ConfigError, match=message):
        build("detector", options, "drift.detector")


def test_a_bad_direction_or_horizon_is_named():
    with pytest.raises(ConfigError, match="Allowed: up, both"):
        DriftDetector(Adwin(), direction="down")
    with pytest.raises(ConfigError, match=r"detector\.horizon: is out of range. Got 10"):
        DriftDetector(Adwin(), horizon=10)


def test_all_three_are_registered():
    assert names("detector") == ["adwin", "kswin", "page_hinkley"]


def test_a_loss_becomes_one_minus_the_probability():
    assert error_of_loss(0.0) == 0.0
    assert error_of_loss(-math.log(0.25)) == pytest.approx(0.75)
    assert error_of_loss(1000.0) == 1.0

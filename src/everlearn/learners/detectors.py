"""Drift detectors of river over an error in 0..1, with a state that is JSON and bounded.

>>> detector = DriftDetector(PageHinkley(threshold=2.0))
>>> [n for n, error in enumerate([0.0] * 50 + [1.0] * 10) if detector.update(error)]
[52]
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from everlearn.errors import StateError, check_choice, check_number, describe
from everlearn.registry import register
from everlearn.seeds import seed_for

HORIZON = 4096  # values that a detector keeps at most
DIRECTIONS = ("up", "both")


class Method(Protocol):
    """What `@register("detector", NAME)` expects: the settings of one of river's detectors."""

    def make(self, seed: int, direction: str) -> Any:
        """Return a new `river.base.DriftDetector`."""

    def n_recent(self, detector: Any) -> int:
        """Return how many of the newest values stand for the new concept, right after a detection."""


# river is imported where it is first used: it loads its data sets and scikit-learn too, 0.6 s
@register("detector", "adwin")
@dataclass(frozen=True)
class Adwin:
    """Adaptive windowing: a window is cut where the means of its two parts differ by more than chance allows.

    Args:
        delta: probability of a false alarm at one test of a window.
        clock: values between two tests.
        min_window_length: values that each part of a cut has, at least.
        grace_period: values before the first test.

    Source: Bifet and Gavaldà, Learning from time-changing data with adaptive windowing, SDM 2007.
    """

    delta: float = 0.5
    clock: int = 1
    min_window_length: int = 5
    grace_period: int = 10

    def __post_init__(self) -> None:
        check_number("adwin.delta", self.delta, above=0, high=1)
        for name in ("clock", "min_window_length", "grace_period"):
            check_number(f"adwin.{name}", vars(self)[name], low=1)

    def make(self, seed: int, direction: str) -> Any:
        """Return river's detector; nothing in it is random."""
        from river.drift import ADWIN

        return ADWIN(
            delta=self.delta,
            clock=self.clock,
            min_window_length=self.min_window_length,
            grace_period=self.grace_period,
        )

    def n_recent(self, detector: Any) -> int:
        """Return the width of the window after the cut."""
        return int(detector.width)


@register("detector", "page_hinkley")
@dataclass(frozen=True)
class PageHinkley:
    """A cumulative sum of deviations from the running mean, that may rise by `threshold` above its minimum.

    Args:
        threshold: rise of the sum that is a drift, in errors.
        tolerance: deviation from the mean that doesn't count, for each value.
        forgetting: factor on the old sum at each value.
        min_values: values before the first test.

    Source: Page, Continuous inspection schemes, Biometrika 1954.
    """

    threshold: float = 4.0
    tolerance: float = 0.05
    forgetting: float = 0.9999
    min_values: int = 30

    def __post_init__(self) -> None:
        check_number("page_hinkley.threshold", self.threshold, above=0)
        check_number("page_hinkley.tolerance", self.tolerance, low=0, high=1)
        check_number("page_hinkley.forgetting", self.forgetting, above=0, high=1)
        check_number("page_hinkley.min_values", self.min_values, low=1)

    def make(self, seed: int, direction: str) -> Any:
        """Return river's detector, one-sided for the direction "up"; nothing in it is random."""
        from river.drift import PageHinkley

        return PageHinkley(
            min_instances=self.min_values,
            delta=self.tolerance,
            threshold=self.threshold,
            alpha=self.forgetting,
            mode=direction,
        )

    def n_recent(self, detector: Any) -> int:
        """Return 1: the value that made the sum pass."""
        return 1


@register("detector", "kswin")
@dataclass(frozen=True)
class Kswin:
    """Kolmogorov-Smirnov windowing: are the newest values distributed like a sample of those before them?

    Args:
        alpha: significance of each test. There is one a value, but on errors of 0 or 1 the test is careful.
        window_size: values kept.
        n_compared: the newest of them, and as many drawn from the others, are compared.

    Source: Raab, Heusinger and Schleif, Reactive soft prototype computing for concept drift streams, Neurocomputing
        2020.
    """

    alpha: float = 0.1
    window_size: int = 200
    n_compared: int = 60

    def __post_init__(self) -> None:
        check_number("kswin.alpha", self.alpha, above=0, high=1)
        check_number("kswin.n_compared", self.n_compared, low=2)
        check_number("kswin.window_size", self.window_size, low=2 * self.n_compared, high=HORIZON // 2)

    def make(self, seed: int, direction: str) -> Any:
        """Return river's detector, which draws its samples by `seed`."""
        from river.drift import KSWIN

        return KSWIN(alpha=self.alpha, window_size=self.window_size, stat_size=self.n_compared, seed=seed)

    def n_recent(self, detector: Any) -> int:
        """Return how many values were compared with older ones."""
        return self.n_compared


class DriftDetector:
    """Tells, value by value, whether an error has changed for the worse (or at all).

    Its state is the values since the last detection: fed again, they make the same detector, for river's detectors are
    functions of them and of a seed. So that they stay few, at `horizon` values the detector is made anew from the
    newer half, whether or not it is ever saved; a resumed detector therefore goes on bit for bit.

    Args:
        method: `Adwin`, `PageHinkley`, `Kswin`, or another registered as a `detector`.
        direction: "up" tells of rising values only; "both" also of falling ones, which for an error is learning.
        horizon: values kept at most. Older ones are forgotten, so that a change slower than that may be missed.
        seed: of what the method draws.

    Cost: an update 1.5 µs (ADWIN, Page-Hinkley) or 0.2 ms (KSWIN); a state of 4,096 numbers, some 80 KB as JSON, which
        are fed again to load it.

    Departs: from the ADWIN paper as river does: a detection empties the whole window, not its older part.
    """

    def __init__(self, method: Method, *, direction: str = "up", horizon: int = HORIZON, seed: int = 0) -> None:
        check_choice("detector.direction", direction, DIRECTIONS)
        check_number("detector.horizon", horizon, low=100)
        if isinstance(method, Kswin):  # made anew from half of it, it must still have values to compare
            check_number("detector.horizon", horizon, low=2 * method.window_size)
        self.method, self.direction, self.horizon = method, direction, horizon
        self.seed = seed_for("drift detector", repr(method), seed)
        self.n_values = 0
        self._values: list[float] = []
        self._detector = self._fed(self._values)

    def update(self, value: float) -> bool:
        """Take the next value and tell whether it shows a drift.

        Args:
            value: an error in 0..1; `error_of_loss` makes one of a loss.

        Raises:
            ConfigError: if the value is outside, or NaN.
        """
        check_number("DriftDetector.update", value, low=0, high=1)
        if self._detector.drift_detected:  # river starts afresh with the value after a detection
            self._values = []
        self.n_values += 1
        self._values.append(float(value))
        self._detector.update(float(value))
        if self._detector.drift_detected:
            return self.direction == "both" or self._has_risen()
        if len(self._values) >= self.horizon:
            self._values = self._values[-(self.horizon // 2) :]
            self._detector = self._fed(self._values)
        return False

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs, as JSON."""
        return {"method": repr(self.method), "n_values": self.n_values, "values": list(self._values)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the detector that returned `state` stood; seed, direction and horizon must be the same.

        Raises:
            StateError: if that one had another method or other settings.
        """
        if state["method"] != repr(self.method):
            way_out = f"Use {state['method']}, as before, or begin without the state"
            raise StateError(describe("drift detector", "the state is of another one", repr(self.method), way_out))
        self.n_values, self._values = state["n_values"], list(state["values"])
        self._detector = self._fed(self._values)

    def _fed(self, values: list[float]) -> Any:
        detector = self.method.make(self.seed, self.direction)
        for value in values:
            detector.update(value)
        return detector

    def _has_risen(self) -> bool:
        n_recent = self.method.n_recent(self._detector)
        recent, earlier = self._values[-n_recent:], self._values[:-n_recent]
        return sum(recent) / len(recent) > sum(earlier) / len(earlier)


def error_of_loss(loss: float) -> float:
    """Return 1 − exp(−loss): for a mean cross-entropy in nats, one minus the typical probability of a right token."""
    return -math.expm1(-loss)

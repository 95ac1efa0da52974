"""Paired timing: each piece of our work is followed at once by the same work done barely, so that noise meets both."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from everlearn.record import environment
from everlearn.seeds import seed_for

N_WARM_UP = 5  # pairs at the start that don't count
N_RESAMPLES = 2000


@dataclass
class Pairs:
    """Times of pairs of work. `first` and `second`: [(wall seconds, processor seconds of this thread), ...]."""

    first: list[tuple[float, float]] = field(default_factory=list)
    second: list[tuple[float, float]] = field(default_factory=list)
    _started: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """Start the clock of a pair's first half."""
        self._started = _now()

    def close(self, second_half: Callable[[], None]) -> None:
        """End the first half, time the second one, and start the clock of the next pair."""
        middle = _now()
        second_half()
        end = _now()
        self.first.append((middle[0] - self._started[0], middle[1] - self._started[1]))
        self.second.append((end[0] - middle[0], end[1] - middle[1]))
        self.start()

    def numbers(self) -> dict[str, Any]:
        """Return medians of the paired ratios and differences, after the warm-up.

        `ratio` and `extra_ms` are of wall time; `cpu_ratio` and `cpu_extra_ms` of processor time, which leaves out the
        moments in which other programs held the core.
        """
        first, second = np.array(self.first)[N_WARM_UP:], np.array(self.second)[N_WARM_UP:]
        return {
            "first_ms": float(np.median(first[:, 0])) * 1e3,
            "second_ms": float(np.median(second[:, 0])) * 1e3,
            "ratio": median_with_interval(first[:, 0] / second[:, 0]),
            "extra_ms": median_with_interval((first - second)[:, 0] * 1e3),
            "cpu_ratio": median_with_interval(first[:, 1] / second[:, 1]),
            "cpu_extra_ms": median_with_interval((first - second)[:, 1] * 1e3),
        }


def median_with_interval(values: np.ndarray) -> dict[str, float]:
    """Return the median of `values` [n], its 95% interval by percentile bootstrap, and the quartiles of the values."""
    generator = np.random.default_rng(seed_for("bootstrap", len(values)))
    medians = np.median(generator.choice(values, (N_RESAMPLES, len(values))), axis=1)
    names = ("low", "high", "quartile_1", "quartile_3")
    numbers = [*np.quantile(medians, (0.025, 0.975)), *np.quantile(values, (0.25, 0.75))]
    interval = {name: float(number) for name, number in zip(names, numbers, strict=True)}
    return {"median": float(np.median(values)), **interval, "n": len(values)}


def report(title: str, numbers: dict[str, Any], null: dict[str, Any]) -> None:
    """Print one comparison beside its null control."""
    print(title)
    for name, measured in (("ours against bare", numbers), ("bare against bare", null)):
        wall, cpu = measured["ratio"], measured["cpu_ratio"]
        extra, cpu_extra = measured["extra_ms"], measured["cpu_extra_ms"]
        print(
            f"  {name}: ratio {wall['median']:.3f} [{wall['low']:.3f}, {wall['high']:.3f}], quartiles"
            f" {wall['quartile_1']:.3f} to {wall['quartile_3']:.3f}, n {wall['n']}; processor time {cpu['median']:.3f}"
            f" [{cpu['low']:.3f}, {cpu['high']:.3f}]; {measured['first_ms']:.2f} and {measured['second_ms']:.2f} ms,"
            f" difference {extra['median']:+.3f} [{extra['low']:+.3f}, {extra['high']:+.3f}] ms"
            f" (processor {cpu_extra['median']:+.3f} [{cpu_extra['low']:+.3f}, {cpu_extra['high']:+.3f}] ms)"
        )


def verdict(what: str, measured: dict[str, Any], name: str, bar: float) -> dict[str, Any]:
    """Print whether `name` ("ratio" or "extra_ms") is within its bar by either clock, and return it."""
    wall, cpu = measured[name]["median"], measured[f"cpu_{name}"]["median"]
    said = [f"{value:.3f} ({'met' if value <= bar else 'MISSED'})" for value in (wall, cpu)]
    print(f"  {what}, bar {bar:g}: {said[0]}, by processor time {said[1]}")
    return {"bar": bar, "wall": wall, "cpu": cpu, "met": wall <= bar, "met_by_cpu": cpu <= bar}


def write(path: Path, config: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Write {config, env, numbers} as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"config": config, "env": environment(torch.device("cpu")), "numbers": numbers}
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.thread_time()


def _rounded(value: Any) -> Any:
    """Keep five significant digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value

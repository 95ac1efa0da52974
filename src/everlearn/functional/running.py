"""Numbers that come one by one: their mean and deviation, and a short curve of them."""

import math
from dataclasses import dataclass
from typing import Any

MOST_POINTS = 64  # of a curve, which has at least half as many where there are steps enough
SILENT = 1e-4  # a deviation below this share of the mean is rounding, which processes and batches share out differently


@dataclass
class Running:
    """Mean and deviation of all values so far. Source: Welford 1962; three numbers, no sum of large squares."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared differences from the mean

    def add(self, value: float) -> None:
        """Take in one value."""
        self.n += 1
        change = value - self.mean
        self.mean += change / self.n
        self.squares += change * (value - self.mean)

    @property
    def deviation(self) -> float:
        """The sample's standard deviation; 0 of fewer than two values."""
        return math.sqrt(self.squares / (self.n - 1)) if self.n > 1 else 0.0

    def score(self, value: float) -> float:
        """Return how many deviations a value lies above the mean; 0 where the values hardly differ."""
        deviation = self.deviation
        return (value - self.mean) / deviation if deviation > SILENT * abs(self.mean) else 0.0


def with_step(curve: dict[str, Any], values: dict[str, float]) -> dict[str, Any]:
    """Return a curve with one step's values added to its last point; a full one gets half the points, twice as wide.

    Args:
        curve: {"width": steps in a point, "counts": steps so far in each point, "sums": {name: over these steps}};
            empty at the start.
    """
    if not curve:
        return {"width": 1, "counts": [1], "sums": {name: [value] for name, value in values.items()}}
    width, counts, sums = curve["width"], curve["counts"], curve["sums"]
    if counts[-1] < width:
        last = {name: [*own[:-1], own[-1] + values[name]] for name, own in sums.items()}
        return {"width": width, "counts": [*counts[:-1], counts[-1] + 1], "sums": last}
    if len(counts) == MOST_POINTS:
        width, counts, sums = 2 * width, in_pairs(counts), {name: in_pairs(own) for name, own in sums.items()}
    return {"width": width, "counts": [*counts, 1], "sums": {name: [*sums[name], values[name]] for name in sums}}


def in_pairs(values: list[float]) -> list[float]:
    """Return the sums of each two neighbours."""
    return [one + two for one, two in zip(values[::2], values[1::2], strict=True)]


def means_of(curve: dict[str, Any]) -> dict[str, float]:
    """Return the means of a curve over all its steps."""
    return {name: sum(own) / sum(curve["counts"]) for name, own in curve["sums"].items()}

"""Numbers that come one by one: their mean and deviation, and a short curve of them."""

import math
from dataclasses import dataclass

import torch

MOST_POINTS = 64  # of a curve, which has at least half as many where there are steps enough
SILENT = 1e-4  # a deviation below this share of the mean is rounding, which processes and batches share out differently


@dataclass
class Running:
    """Mean and deviation of all values so far. Source: Welford 1962; three numbers, no sum of large squares."""

    n: float = 0.0
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


def with_step(curve: dict[str, torch.Tensor], values: dict[str, float]) -> dict[str, torch.Tensor]:
    """Return a curve with one step's values added to its last point; a full one gets half the points, twice as wide.

    Args:
        curve: {"steps": how many in each point, name: sums over them}, each float64 [n_points]; empty at the start.
            All points but the last are as wide as the first.
    """
    new = {name: torch.tensor([value], dtype=torch.float64) for name, value in {"steps": 1.0, **values}.items()}
    if not curve:
        return new
    steps = curve["steps"]
    if steps[-1] < steps[0]:
        return {name: torch.cat([own[:-1], own[-1:] + new[name]]) for name, own in curve.items()}
    if len(steps) == MOST_POINTS:
        curve = {name: own.view(-1, 2).sum(1) for name, own in curve.items()}
    return {name: torch.cat([own, new[name]]) for name, own in curve.items()}


def means_of(curve: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the means of a curve over all its steps."""
    return {name: (own.sum() / curve["steps"].sum()).item() for name, own in curve.items() if name != "steps"}

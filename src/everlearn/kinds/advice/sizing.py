"""How large trials may be so that they fit into a time budget: rows, items, and what they take. Pure functions."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from everlearn.errors import ConfigError, describe
from everlearn.streams.schedule import Schedule

MIN_ROWS, MIN_ITEMS = 64, 20  # of a task: fewer tell nothing
ITEMS_SHARE = 1 / 3  # of the budget goes to scoring, at most


@dataclass(frozen=True)
class Volume:
    """How much one trial trains and scores: the rows of each step of the schedule, the items of each scoring."""

    rows: tuple[int, ...]
    items: tuple[int, ...]

    @classmethod
    def of(cls, schedule: Schedule) -> "Volume":
        """Return the volume of a schedule whose tasks are scored from when they are learned on."""
        items: list[int] = []
        seen: dict[str, int] = {}
        for step in schedule.steps:
            seen[step.name] = len(step.evaluation)
            items += seen.values()
        return cls(tuple(len(step.train) for step in schedule.steps), tuple(items))

    def within(self, sizes: "Sizes") -> "Volume":
        """Return the volume with no more than so many rows and items a task."""
        return Volume(tuple(min(n, sizes.rows) for n in self.rows), tuple(min(n, sizes.items) for n in self.items))


@dataclass(frozen=True)
class Sizes:
    """Training rows and evaluation items of a task, at most."""

    rows: int
    items: int


@dataclass(frozen=True)
class Timing:
    """What plain training takes: seconds to start a trial, for a training row (all epochs), for an item scored."""

    start_s: float
    row_s: float
    item_s: float

    def trial_s(self, volume: Volume, cost: float = 1.0) -> float:
        """Return what a trial takes whose training costs so many times plain training's."""
        return self.start_s + cost * self.row_s * sum(volume.rows) + self.item_s * sum(volume.items)


def parse_budget(text: str) -> float:
    """Return the seconds that `90s`, `10m` or `1h` stand for."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text.strip())
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not seconds:
        raise ConfigError(describe("--budget", "is no time", text, "Write 90s, 10m or 1h"))
    return seconds


def budget_text(seconds: float) -> str:
    """Return seconds as `--budget` takes them, rounded up."""
    return f"{math.ceil(seconds)}s" if seconds <= 90 else f"{math.ceil(seconds / 60)}m"


def measure_timing(wall_s: float, steps: Sequence[Mapping[str, float]], volume: Volume) -> Timing:
    """Return the timing that a short trial shows.

    The first step warms up: rows and items are timed on the others, and what is left of the wall clock is the start.

    Args:
        steps: `train_s` and `eval_s` of each step of the trial.
        volume: what the trial trained and scored; its first step scored one task.
    """
    row_s = sum(step["train_s"] for step in steps[1:]) / sum(volume.rows[1:])
    item_s = sum(step["eval_s"] for step in steps[1:]) / sum(volume.items[1:])
    return Timing(max(0.0, wall_s - row_s * sum(volume.rows) - item_s * sum(volume.items)), row_s, item_s)


def fit_sizes(timing: Timing, volume: Volume, costs: Sequence[float], budget_s: float) -> Sizes | None:
    """Return the most rows and items of a task with which trials of these costs fit into the budget.

    Where the smallest sizes are too much for all trials, they are made for as many of the first as fit, two at least.

    Returns:
        The sizes, or None if two trials of the smallest sizes don't fit.
    """
    rows, items = min(MIN_ROWS, max(volume.rows)), min(MIN_ITEMS, max(volume.items))
    n = len(costs)

    def total_s(rows: int, items: int) -> float:
        return sum(timing.trial_s(volume.within(Sizes(rows, items)), cost) for cost in costs[:n])

    while n > 2 and total_s(rows, items) > budget_s:
        n -= 1
    if total_s(rows, items) > budget_s:
        return None

    def scoring_fits(items: int) -> bool:
        scoring_s = n * timing.item_s * sum(volume.within(Sizes(rows, items)).items)
        return scoring_s <= ITEMS_SHARE * budget_s and total_s(rows, items) <= budget_s

    items = _largest(items, max(volume.items), scoring_fits)
    rows = _largest(rows, max(volume.rows), lambda rows: total_s(rows, items) <= budget_s)
    items = _largest(items, max(volume.items), lambda items: total_s(rows, items) <= budget_s)
    return Sizes(rows, items)


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number from `low`, which fits, to `high` that does; what fits stays so below."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low

"""Online runs as pictures and tables see them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.errors import ConfigError, describe
from everlearn.report.online_results import OnlineRun, online_results, read_online_run, stretches_of

MOST_TYPES = 12  # panels in a row that can still be read
WINDOW = 20  # episodes that a rolling mean is taken over


@dataclass(frozen=True)
class OnlineView:
    """One online run: its name, its log and its results."""

    name: str
    run: OnlineRun
    results: Mapping[str, Any]

    def over_seeds(self, name: str) -> list[float]:
        """Return a number of each seed's results, where it has it; of an entry with an interval, its value."""
        values = [seed[name] for seed in self.results["seeds"]]
        return [value["value"] if isinstance(value, Mapping) else value for value in values if value is not None]

    def seconds_per_episode(self) -> float:
        """Return what an episode took, in seconds, over all seeds, with its share of the begins and ends of tasks."""
        n = sum(self.over_seeds("n_episodes"))
        return sum((*self.over_seeds("episode_s"), *self.over_seeds("task_s"))) / n if n else 0.0

    def kept_bytes(self) -> float:
        """Return what the strategies keep at the end, mean over the seeds."""
        return float(np.mean([sum(seed["strategy_bytes"].values()) for seed in self.results["seeds"]]))

    def rolling(self, field: str) -> np.ndarray:
        """Return the mean over the last `WINDOW` episodes [n_episodes] of an episode's field, mean over the seeds."""
        rows = [[float(line[field]) for line in lines] for lines in self.run.episodes.values()]
        shortest = min(len(row) for row in rows)
        mean = np.mean([row[:shortest] for row in rows], axis=0)
        sums = np.cumsum(np.concatenate([[0.0], mean]))
        ends = np.arange(1, shortest + 1)
        starts = np.maximum(0, ends - WINDOW)
        return (sums[ends] - sums[starts]) / (ends - starts)

    def stretches(self) -> dict[str, tuple[int, int]]:
        """Return the first and last episode of each type, in order.

        Empty unless the types came one after another, the same for every seed, and each has held-out problems.
        """
        found = [stretches_of(lines) for lines in self.run.episodes.values()]
        is_told = all(one == found[0] for one in found) and set(found[0]) <= set(self.results["by_type"])
        return found[0] if is_told and len(found[0]) <= MOST_TYPES else {}

    @property
    def answers_again(self) -> bool:
        """Tell whether problems were answered again after the step."""
        return all(seed["instant_learning"] is not None for seed in self.results["seeds"])


def load_online_views(folders: Mapping[str, Path]) -> list[OnlineView]:
    """Read online runs: names to folders.

    Raises:
        ConfigError: if none is named or one has no episode yet. StateError: if a log is missing or damaged.
    """
    if not folders:
        raise ConfigError(describe("report", "no run is named", list(folders), "Name at least one folder"))
    views = []
    for name, folder in folders.items():
        run = read_online_run(folder)
        if not any(run.episodes.values()):
            way_out = f"Go on with it: everlearn resume {folder}"
            raise ConfigError(describe("report", "the run has no episode yet", str(folder), way_out))
        views.append(OnlineView(name, run, online_results(run)))
    return views


def group_names(views: Sequence[OnlineView], key: str) -> list[str]:
    """Return the types, or difficulties, of the held-out problems over all runs."""
    return sorted({name for view in views for name in view.results[key]})

"""Runs by reinforcement as pictures and tables see them: their learning steps laid end to end on one axis."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from everlearn.report.policy_records import Measurement, PolicyLog, read_policy
from everlearn.report.policy_results import Phase, phases_of, policy_results
from everlearn.report.views import RunView

Line = tuple[np.ndarray, np.ndarray]  # x, y


@dataclass(frozen=True)
class Span:
    """Where a learning step lies on the axis of iterations, which runs on over the whole run."""

    name: str
    label: str
    is_warm_start: bool
    begin: float
    end: float


@dataclass(frozen=True)
class PolicyView:
    """A run by reinforcement as the report shows it.

    phases: {seed: steps begun} of the seeds shown, which are those that learn in the order of the first.
    spans: where these lie; a step without iterations is a quarter as wide as the widest. tasks: what is measured.
    """

    view: RunView
    phases: Mapping[int, Sequence[Phase]]
    spans: Sequence[Span]
    tasks: tuple[str, ...]
    entry: Mapping[str, Any]  # `reinforcement` of its results

    @classmethod
    def of(cls, view: RunView) -> "PolicyView":
        """Read what the plain report doesn't.

        Raises:
            StateError: if iterations.jsonl is missing or damaged.
        """
        log = read_policy(view.run)
        seeds = view.seeds or list(view.run.schedule)
        order = view.run.schedule[seeds[0]]
        phases = {seed: phases_of(view.run, log, seed) for seed in seeds if view.run.schedule[seed] == order}
        entry = policy_results(view.run, log)["reinforcement"]
        return cls(view, phases, _spans(phases), _tasks(log), entry)

    @property
    def name(self) -> str:
        """The run's name in the report."""
        return self.view.name

    def measured(self, of: Callable[[Measurement], float | None]) -> list[Line]:
        """Return each seed's line through a number of its measurements, where it was taken."""
        return [line for own in self.phases.values() if (line := self._measured(own, of))[0].size]

    def told(self, name: str) -> list[Line]:
        """Return each seed's line through a number of its iterations, where it was told; steps are apart by a NaN."""
        lines = []
        for own in self.phases.values():
            x, y = [], []
            for phase, span in zip(own, self.spans, strict=False):
                points = [
                    (span.begin + one.number, one.numbers[name]) for one in phase.iterations if name in one.numbers
                ]
                if points:
                    x += [*(place for place, _ in points), points[-1][0] + 0.5]
                    y += [*(value for _, value in points), np.nan]
            if x:
                lines.append((np.array(x), np.array(y)))
        return lines

    def _measured(self, phases: Sequence[Phase], of: Callable[[Measurement], float | None]) -> Line:
        points = []
        for phase, span in zip(phases, self.spans, strict=False):
            points.append((span.begin, of(phase.start)))
            points += [(span.begin + one.iteration, of(one)) for one in phase.measured if one.iteration is not None]
            if phase.complete:
                points.append((span.begin + len(phase.iterations) if phase.iterations else span.end, of(phase.end)))
                points.append((span.end, of(phase.end)))
        known = [(x, y) for x, y in points if y is not None]
        return np.array([x for x, _ in known]), np.array([y for _, y in known], dtype=float)


def mean_line(lines: Sequence[Line]) -> Line:
    """Return the mean of lines at all their places, as far as all of them go; between its points a line is straight.

    Where one of them has a gap, the mean has one too.
    """
    if len(lines) == 1:
        return lines[0]
    begin, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    places = np.unique(np.concatenate([x for x, _ in lines]))
    places = places[(begin <= places) & (places <= end)]
    return places, np.mean([_at(x, y, places) for x, y in lines], axis=0)


def _at(x: np.ndarray, y: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return a line's values at places: the later one where it has two, none in the gaps that its NaNs make."""
    found = np.full(len(places), np.nan)
    breaks = [0, *(np.flatnonzero(np.isnan(y)) + 1).tolist(), len(y)]
    for first, last in itertools.pairwise(breaks):
        own_x, own_y = x[first:last], y[first:last]
        own_x, own_y = own_x[~np.isnan(own_y)], own_y[~np.isnan(own_y)]
        if own_x.size:
            inside = (own_x[0] <= places) & (places <= own_x[-1])
            found[inside] = np.interp(places[inside], own_x, own_y)
    return found


def step_label(name: str, round_: int, repeats: bool) -> str:
    """Return what a learning step is called."""
    return f"{name}, round {round_}" if repeats else name


def repeating(names: Iterable[tuple[str, int]]) -> set[str]:
    """Return the names that come in several rounds."""
    return {name for name, round_ in names if round_ > 1}


def _spans(phases: Mapping[int, Sequence[Phase]]) -> list[Span]:
    longest = max(phases.values(), key=len)
    widths = [
        max((len(own[place].iterations) for own in phases.values() if place < len(own)), default=0)
        for place in range(len(longest))
    ]
    bare = max((*widths, 4)) / 4
    repeats = repeating((phase.name, phase.round) for phase in longest)
    spans, begin = [], 0.0
    for phase, width in zip(longest, widths, strict=True):
        label = step_label(phase.name, phase.round, phase.name in repeats)
        spans.append(Span(phase.name, label, phase.is_warm_start, begin, begin + (width or bare)))
        begin = spans[-1].end
    return spans


def _tasks(log: PolicyLog) -> tuple[str, ...]:
    return tuple(dict.fromkeys(task for own in log.measured.values() for one in own for task in one.tasks))

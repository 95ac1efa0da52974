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

    label: str
    is_warm_start: bool
    begin: float
    end: float


@dataclass(frozen=True)
class PolicyView:
    """A run by reinforcement as the report shows it.

    phases: {seed: steps begun} of the seeds shown, which are those that learn in the order of the first.
    spans: where these lie. tasks: what is measured.
    """

    view: RunView
    phases: Mapping[int, Sequence[Phase]]
    spans: Sequence[Span]
    tasks: tuple[str, ...]
    entry: Mapping[str, Any]  # `reinforcement` of its results

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
                points += [(span.begin + len(phase.iterations), of(phase.end))] if phase.iterations else []
                points.append((span.end, of(phase.end)))
        known = list(dict.fromkeys((x, y) for x, y in points if y is not None))  # an end is the next step's start
        return np.array([x for x, _ in known]), np.array([y for _, y in known], dtype=float)


def load_policies(views: Sequence[RunView]) -> list[PolicyView]:
    """Read what the plain report doesn't of runs by reinforcement.

    Runs that learn the same in one order share their spans: each step is as wide as its iterations are many, in the
    seed that has most. Where none has any, it is a quarter as wide as the widest.

    Raises:
        StateError: if an iterations.jsonl is missing or damaged.
    """
    logs = [read_policy(view.run) for view in views]
    found = [_phases(view, log) for view, log in zip(views, logs, strict=True)]
    orders = [view.run.schedule[next(iter(phases))] for view, phases in zip(views, found, strict=True)]
    together = [own for phases in found for own in phases.values()] if len(set(orders)) == 1 else None
    return [
        PolicyView(
            view,
            phases,
            _spans(list(phases.values()), together or list(phases.values())),
            tuple(dict.fromkeys(task for own in log.measured.values() for one in own for task in one.tasks)),
            policy_results(view.run, log)["reinforcement"],
        )
        for view, log, phases in zip(views, logs, found, strict=True)
    ]


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


def _phases(view: RunView, log: PolicyLog) -> dict[int, list[Phase]]:
    """Return the steps of the seeds that learn in the order of the first one shown."""
    seeds = view.seeds or list(view.run.schedule)
    order = view.run.schedule[seeds[0]]
    return {seed: phases_of(view.run, log, seed) for seed in seeds if view.run.schedule[seed] == order}


def _spans(own: Sequence[Sequence[Phase]], together: Sequence[Sequence[Phase]]) -> list[Span]:
    """Return where the steps of a run's seeds lie, as wide as the seeds of all these runs make them."""
    longest = max(own, key=len)
    widths = [
        max((len(phases[place].iterations) for phases in together if place < len(phases)), default=0)
        for place in range(max(map(len, together)))
    ]
    bare = max((*widths, 4)) / 4
    repeats = repeating((phase.name, phase.round) for phases in together for phase in phases)
    spans, begin = [], 0.0
    for phase, width in zip(longest, widths, strict=False):
        label = step_label(phase.name, phase.round, phase.name in repeats)
        spans.append(Span(label, phase.is_warm_start, begin, begin + (width or bare)))
        begin = spans[-1].end
    return spans

"""From the log of a run by reinforcement to the entry `reinforcement` of its results.json: what each learning step made
of the success on its own task and on the others, greedy and at temperature 1."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everlearn.evaluation.stats import (
    SHARE,
    Interval,
    combine_intervals,
    outcome_interval,
    paired_difference,
    seeds_interval,
)
from everlearn.report.policy_records import Answers, Iteration, Measurement, PolicyLog
from everlearn.report.records import WARM_START, Run
from everlearn.report.results import build_results, plain

CHANGE = (-1.0, 1.0)
FROM_HERE = {"kl_to_start": 0.0, "weight_change": 0.0}
LAST = 5  # iterations that a number "at the end" is the mean of
DECODED: Mapping[str, Callable[[Answers], Sequence[float]]] = {
    "greedy": lambda answers: answers.greedy,
    "sampled": lambda answers: answers.sampled,
}


@dataclass(frozen=True)
class Phase:
    """A learning step of one seed, as far as it went.

    Attributes:
        name: its task, or what the warm start is called. round: how often the name has come by now, from 1.
        own: the tasks that it learns: of a warm start over all of them, all.
        start: the policy as it was before; of the first that is no warm start it is what KL and weight change count
            from. measured: in mid-task and, if it is `complete`, at its end.
    """

    seed: int
    after: int
    name: str
    round: int
    own: tuple[str, ...]
    start: Measurement
    measured: tuple[Measurement, ...]
    iterations: tuple[Iteration, ...]

    @property
    def is_warm_start(self) -> bool:
        """Whether right answers were learned here, to lay a ground."""
        return self.name not in self.start.tasks and self.name.startswith(WARM_START)

    @property
    def complete(self) -> bool:
        """Whether it came to its end, and was measured there."""
        return bool(self.measured) and self.measured[-1].iteration is None

    @property
    def end(self) -> Measurement | None:
        """The last measurement; None where there is none since the start."""
        return self.measured[-1] if self.measured else None

    @property
    def others(self) -> tuple[str, ...]:
        """The tasks that it doesn't learn."""
        return tuple(task for task in self.start.tasks if task not in self.own)


def phases_of(run: Run, log: PolicyLog, seed: int) -> list[Phase]:
    """Return a seed's learning steps that were begun, in order."""
    schedule = run.schedule[seed]
    at_end = {one.after: one for one in log.measured[seed] if one.iteration is None}
    phases: list[Phase] = []
    for after, name in enumerate(schedule):
        iterations = tuple(one for one in log.iterations[seed] if one.after == after)
        measured = _measured(log.measured[seed], after, len(iterations))
        start = at_end.get(after - 1)
        if start is None or not (measured or iterations):
            break
        phase = Phase(
            seed, after, name, schedule[: after + 1].count(name), _learned(name, start), start, measured, iterations
        )
        if not phase.is_warm_start and all(one.is_warm_start for one in phases):
            phase = replace(phase, start=replace(start, numbers={**start.numbers, **FROM_HERE}))
        phases.append(phase)
    return phases


def _measured(measured: Sequence[Measurement], after: int, n_iterations: int) -> tuple[Measurement, ...]:
    """Return a step's measurements, its end once: it may have been due after the last iteration as well."""
    own = [one for one in measured if one.after == after]
    ended = any(one.iteration is None for one in own)
    return tuple(one for one in own if not (ended and one.iteration == n_iterations))


def _learned(name: str, start: Measurement) -> tuple[str, ...]:
    if name in start.tasks:
        return (name,)
    named = name.removeprefix(f"{WARM_START} of ")
    return (named,) if named in start.tasks else tuple(start.tasks)


def policy_results(run: Run, log: PolicyLog) -> dict[str, Any]:
    """Return the content of results.json: a supervised run's, and `reinforcement`: each learning step, over the seeds
    and of every seed.

    Success is a share of right answers. Intervals are over the held-out problems, on which start and end are paired;
    tasks are joined by `combine_intervals`, seeds by `seeds_interval`. Only complete seeds enter if there are any.
    """
    results = build_results(run)
    seeds = [entry["seed"] for entry in results["seeds"] if entry["complete"]] or list(run.schedule)
    found = {seed: phases_of(run, log, seed) for seed in run.schedule}
    steps: dict[tuple[str, int], list[Phase]] = {}
    for phase in (phase for seed in seeds for phase in found[seed]):
        steps.setdefault((phase.name, phase.round), []).append(phase)
    each = [{"seed": seed, "phases": [phase_entry([phase]) for phase in phases]} for seed, phases in found.items()]
    entry = {"phases": [phase_entry(own) for own in steps.values()], "seeds": each}
    return {**results, "reinforcement": plain(entry)}


def phase_entry(phases: Sequence[Phase]) -> dict[str, Any]:
    """Return what a learning step came to, over the seeds."""
    first = phases[0]
    ended = [phase for phase in phases if phase.complete] or [phase for phase in phases if phase.measured] or phases
    seconds = [
        {name: sum(one.seconds.get(name, 0.0) for one in phase.iterations) for name in ("draw", "judge", "learn")}
        for phase in ended
    ]
    return {
        "name": first.name,
        "round": first.round,
        "warm_start": first.is_warm_start,
        "tasks": list(first.own),
        "complete": all(phase.complete for phase in phases),
        "n_seeds": len(ended),
        "n": sum(len(first.start.tasks[task].greedy) for task in first.own),
        **{
            name: {
                **_change(ended, first.own, of),
                "others": _change(ended, first.others, of) if first.others else None,
            }
            for name, of in DECODED.items()
        },
        "by_task": {
            task: {name: _change(ended, (task,), of) for name, of in DECODED.items()} for task in first.start.tasks
        },
        "n_iterations": _mean(len(phase.iterations) for phase in ended),
        "n_answers": _mean(sum(one.numbers.get("n_answers", 0) for one in phase.iterations) for phase in ended),
        "seconds": {name: _mean(one[name] for one in seconds) for name in seconds[0]},
        "stopped": [_why(phase) for phase in ended],
        "at_end": {
            **{name: _mean(_last(phase, name) for phase in ended) for name in ("signal", "entropy", "length")},
            "weight_change": _mean(_last(phase, "weight_change", 1) for phase in ended),
            "weight_change_to_start": _mean(_at_end(phase, "weight_change") for phase in ended),
            **{name: _mean(_at_end(phase, name) for phase in ended) for name in ("kl_to_start", "dormant")},
        },
    }


def _change(
    phases: Sequence[Phase], tasks: Sequence[str], of: Callable[[Answers], Sequence[float]]
) -> dict[str, Mapping[str, float] | None]:
    """Return the mean success on tasks at the start and at the end of a step, and the gain; None of what isn't yet."""

    def over_seeds(of_task: Callable[[Phase, str], Interval], bounds: tuple[float, float]) -> dict[str, float]:
        parts = [combine_intervals([of_task(phase, task) for task in tasks]) for phase in phases]
        return _entry(seeds_interval(parts, bounds))

    start = over_seeds(lambda phase, task: outcome_interval(of(phase.start.tasks[task]), SHARE), SHARE)
    if not all(phase.measured for phase in phases):
        return {"start": start, "end": None, "gain": None}
    end = over_seeds(lambda phase, task: outcome_interval(of(phase.end.tasks[task]), SHARE), SHARE)
    gain = over_seeds(lambda phase, task: _paired(of(phase.start.tasks[task]), of(phase.end.tasks[task])), CHANGE)
    return {"start": start, "end": end, "gain": gain}


def _paired(before: Sequence[float], after: Sequence[float]) -> Interval:
    paired = paired_difference(before, after)
    return Interval(paired.difference, paired.low, paired.high)


def _entry(interval: Interval) -> dict[str, float]:
    return {"mean": interval.value, "low": interval.low, "high": interval.high}


def _why(phase: Phase) -> str | None:
    """Return why a step came to its end: what its last iteration says, or that it was through with them."""
    if not phase.complete:
        return None
    return (phase.iterations[-1].stopped if phase.iterations else None) or "done"


def _at_end(phase: Phase, name: str) -> float | None:
    return None if phase.end is None else phase.end.numbers.get(name)


def _last(phase: Phase, name: str, n: int = LAST) -> float | None:
    """Return the mean of a number over the last iterations that tell it."""
    return _mean([one.numbers[name] for one in phase.iterations if name in one.numbers][-n:])


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

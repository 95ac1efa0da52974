"""Reading `iterations.jsonl`, which a run by reinforcement appends to beside `results.jsonl`. Damage is named."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everlearn.report.records import Line, Run, read_step, read_text

ITERATIONS = "iterations.jsonl"
PLACE = ("seed", "after", "iteration")
NUMBERS = ("kl_to_start", "weight_change", "dormant")  # of a measurement, each where it was taken


@dataclass(frozen=True)
class Iteration:
    """An iteration: `number` counts from 1 in its learning step.

    numbers: what was told of it, finite. seconds: by what they went for. stopped: why the step ended with it early.
    """

    seed: int
    after: int
    number: int
    numbers: Mapping[str, float]
    seconds: Mapping[str, float]
    stopped: str | None = None


@dataclass(frozen=True)
class Answers:
    """What was answered to a task's held-out problems: for each the share that is right, of the likeliest answer and
    of those drawn at temperature 1; their length in tokens, and the share that was cut off."""  # fmt: skip

    greedy: tuple[float, ...]
    sampled: tuple[float, ...]
    length: float
    cut_off: float


@dataclass(frozen=True)
class Measurement:
    """A policy measured on all tasks: after a learning step (`iteration` None), before any (`after` -1), or in one."""

    seed: int
    after: int
    iteration: int | None
    tasks: Mapping[str, Answers]
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class PolicyLog:
    """What iterations.jsonl says, {seed: lines in order}."""

    iterations: Mapping[int, tuple[Iteration, ...]]
    measured: Mapping[int, tuple[Measurement, ...]]


def read_policy(run: Run) -> PolicyLog:
    """Read the iterations and measurements of a run whose results.jsonl was read.

    The later line of an iteration or a measurement holds. A last line without its end, which a kill cut off, stays out.

    Raises:
        StateError: if the file is missing, or a line is damaged; the message names it.
    """
    path = run.folder / ITERATIONS
    iterations: dict[tuple[int, int, int], Iteration] = {}
    measured: dict[tuple[int, int, int | None], Measurement] = {}
    sizes: dict[tuple[int, str], int] = {}
    for number, text in enumerate(read_text(path).split("\n")[:-1], start=1):
        if not text.strip():
            continue
        line = Line.parse(path, number, text)
        kind = line.take("type", (str,))
        seed, after = read_step(line, run.schedule)
        if after >= 0 and line.take("trained", (str,)) != run.schedule[seed][after]:
            raise line.error(f"trained is not the step's task, {run.schedule[seed][after]!r}", line.fields["trained"])
        if kind == "iteration":
            one = _read_iteration(line, seed, after)
            iterations[seed, after, one.number] = one
        elif kind == "evaluation":
            found = _read_measurement(line, seed, after, sizes)
            measured[seed, after, found.iteration] = found
        else:
            raise line.error("unknown type (iteration, evaluation)", kind)
    return PolicyLog(
        {seed: tuple(one for one in iterations.values() if one.seed == seed) for seed in run.schedule},
        {seed: tuple(one for one in measured.values() if one.seed == seed) for seed in run.schedule},
    )


def _read_iteration(line: Line, seed: int, after: int) -> Iteration:
    shares = {name: line.share(name) for name in ("success", "signal", "cut_off")}
    others = {
        name: line.number(name)
        for name, value in line.fields.items()
        if name not in PLACE and isinstance(value, int | float) and not isinstance(value, bool)
    }
    seconds, stopped = line.numbers("seconds", (dict,)), line.take("stopped", (str, type(None)), None)
    return Iteration(seed, after, _count(line, "iteration"), others | shares, seconds, stopped)


def _read_measurement(line: Line, seed: int, after: int, sizes: dict[tuple[int, str], int]) -> Measurement:
    """sizes: how many held-out problems a seed's tasks were found to have so far."""
    iteration = None if line.take("iteration", (int, type(None)), None) is None else _count(line, "iteration")
    tasks = {}
    for task, fields in line.objects("tasks").items():
        part = Line(f"{line.where}, task {task!r}", fields)
        greedy, sampled = _outcomes(part, "greedy"), _outcomes(part, "sampled")
        n = sizes.setdefault((seed, task), len(greedy))
        if {len(greedy), len(sampled)} != {n}:
            raise part.error(f"holds other problems than before, which were {n}", (len(greedy), len(sampled)))
        tasks[task] = Answers(greedy, sampled, part.number("length"), part.share("cut_off"))
    if not tasks:
        raise line.error("tasks names none", line.fields.get("tasks"))
    missing = [task for owner, task in sizes if owner == seed and task not in tasks]
    if missing:
        raise line.error("tasks lacks some that were measured before", missing)
    numbers = {name: line.number(name) for name in NUMBERS if line.fields.get(name) is not None}
    return Measurement(seed, after, iteration, tasks, numbers)


def _count(line: Line, name: str) -> int:
    value = line.take(name, (int,))
    if value < 1:
        raise line.error(f"{name} is below 1", value)
    return value


def _outcomes(line: Line, name: str) -> tuple[float, ...]:
    values: Any = line.numbers(name, (list,))
    if not values or not all(0 <= value <= 1 for value in values):
        raise line.error(f"{name} holds no shares from 0 to 1", values)
    return tuple(map(float, values))


def mean_of(outcomes: tuple[float, ...]) -> float:
    """Return the share of right answers."""
    return math.fsum(outcomes) / len(outcomes)

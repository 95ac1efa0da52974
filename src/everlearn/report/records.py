"""Reading `results.jsonl`, the log that a run appends to: one JSON object a line, the header first. Damage is named."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlearn.errors import StateError, describe
from everlearn.types import Cost, Score, TaskResult

SCHEMA = 1
RESULTS_LOG = "results.jsonl"
WARM_START = "warm start"  # so begin the names of steps that teach no task, but lay a ground for those to come
_MISSING = object()


@dataclass(frozen=True)
class StepCost:
    """What one learning step took."""

    seed: int
    after: int
    trained: str | None
    cost: Cost


@dataclass(frozen=True)
class Run:
    """Everything that a run folder's log says. `schedule[seed]` names the task of each learning step, in order.

    data: what each task's rows were; empty for runs that didn't write it down. abilities: of the base model; the name
    of one stands where a score has its task.
    """

    folder: Path
    recipe: Mapping[str, Any]
    env: Mapping[str, Any]
    schedule: Mapping[int, tuple[str, ...]]
    scores: tuple[TaskResult, ...]
    costs: tuple[StepCost, ...]
    data: tuple[Mapping[str, Any], ...] = ()
    abilities: tuple[TaskResult, ...] = ()


@dataclass(frozen=True)
class Line:
    """One line of a log; its readers name the line and the field when a value is not what it should be."""

    where: str
    fields: Mapping[str, Any]

    @classmethod
    def parse(cls, path: Path, number: int, text: str) -> "Line":
        """Return the line that the text is."""
        where = f"{path}, line {number}"
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            way_out = "The line is cut or damaged: `everlearn resume` the run, or remove the line if it is the last"
            raise StateError(describe(where, f"is no JSON ({error.msg})", text, way_out)) from error
        if not isinstance(fields, dict):
            raise StateError(describe(where, "is no JSON object", text, "Remove the line"))
        return cls(where, fields)

    def take(self, name: str, kinds: tuple[type, ...], default: object = _MISSING) -> Any:
        value = self.fields.get(name, default)
        if value is _MISSING:
            raise self.error(f"{name} is missing", sorted(self.fields))
        if value is not default and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise self.error(f"{name} has a wrong type", value)
        return value

    def number(self, name: str, default: object = _MISSING) -> float:
        """A finite number, or the default."""
        value = self.take(name, (int, float), default)
        if value is not default and not math.isfinite(value):
            raise self.error(f"{name} is not finite", value)
        return value

    def share(self, name: str) -> float:
        """A number from 0 to 1."""
        value = self.number(name)
        if not 0 <= value <= 1:
            raise self.error(f"{name} is no share from 0 to 1", value)
        return float(value)

    def bound(self, name: str) -> float:
        """The end of an interval: NaN where the log says null, for one item has no interval."""
        value = self.take(name, (int, float, type(None)), None)
        return math.nan if value is None else float(value)

    def numbers(self, name: str, kinds: tuple[type, ...]) -> Any:
        """A list or an object of numbers, empty if it is left out."""
        values = self.take(name, kinds, kinds[0]())
        for value in values.values() if isinstance(values, dict) else values:
            if isinstance(value, bool | int | float) and math.isfinite(value):
                continue
            raise self.error(f"{name} holds something that is no finite number", value)
        return values

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, empty if it is left out."""
        values = self.take(name, (list,), [])
        for value in values:
            if not isinstance(value, str):
                raise self.error(f"{name} holds something that is no text", value)
        return tuple(values)

    def objects(self, name: str) -> dict[str, Any]:
        """An object of objects, empty if it is left out."""
        values = self.take(name, (dict,), {})
        for value in values.values():
            if not isinstance(value, dict):
                raise self.error(f"{name} holds something that is no object", value)
        return values

    def error(self, what: str, got: object) -> StateError:
        return StateError(describe(self.where, what, got, "See docs/results-schema.md for what a line holds"))


def read_run(folder: Path) -> Run:
    """Read a run folder's `results.jsonl`.

    A resumed run repeats the lines of the step in which it was stopped: the later line of a cell holds.

    Raises:
        StateError: if the file is missing, empty or of another schema, or a line is damaged; the message names it.
    """
    path = Path(folder) / RESULTS_LOG
    text = read_text(path)
    lines = [Line.parse(path, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise StateError(describe(str(path), "is empty", text, "Start the run again"))
    header, *rest = lines
    recipe, env, schedule = _read_header(header)
    scores: dict[tuple[int, int, str], TaskResult] = {}
    costs: dict[tuple[int, int], StepCost] = {}
    data: dict[str, Mapping[str, Any]] = {}
    abilities: dict[tuple[int, int, str], TaskResult] = {}
    for line in rest:
        kind = line.take("type", (str,))
        if kind == "data":
            data[line.take("task", (str,))] = {name: value for name, value in line.fields.items() if name != "type"}
            continue
        seed, after = read_step(line, schedule)
        if kind in ("score", "ability"):
            result = _read_score(line, seed, after)
            (scores if kind == "score" else abilities)[seed, after, result.score.task] = result
        elif kind == "cost":
            costs[seed, after] = _read_cost(line, seed, after)
        else:
            raise line.error("unknown type (data, score, ability, cost)", kind)
    found = (tuple(one.values()) for one in (scores, costs, data, abilities))
    return Run(Path(folder), recipe, env, schedule, *found)


def read_text(path: Path) -> str:
    """Return the text of a run's log.

    Raises:
        StateError: if it is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        way_out = "Name a run folder"
        raise StateError(describe(str(path), f"can't be read ({error})", str(path.parent), way_out)) from error


def _read_header(line: Line) -> tuple[dict, dict, dict[int, tuple[str, ...]]]:
    if line.fields.get("type") != "header":
        raise line.error("the first line is no header", line.fields.get("type"))
    if line.take("schema", (int,)) != SCHEMA:
        raise line.error(f"is of another schema than {SCHEMA}", line.fields["schema"])
    schedule: dict[int, tuple[str, ...]] = {}
    for seed, names in line.take("tasks", (dict,)).items():
        named = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        if not seed.lstrip("-").isdigit() or not named:
            raise line.error("tasks holds no list of names for each seed", {seed: names})
        schedule[int(seed)] = tuple(names)
    if not schedule:
        raise line.error("tasks names no seed", schedule)
    return line.take("recipe", (dict,)), line.take("env", (dict,)), schedule


def read_step(line: Line, schedule: Mapping[int, tuple[str, ...]]) -> tuple[int, int]:
    """Return the seed that a line is of, and the learning step that it follows or is in.

    Raises:
        StateError: if the schedule doesn't have them.
    """
    seed, after = line.take("seed", (int,)), line.take("after", (int,))
    if seed not in schedule:
        raise line.error("seed is not in the header", seed)
    if not -1 <= after < len(schedule[seed]):
        raise line.error(f"after is outside the schedule of {len(schedule[seed])} steps", after)
    return seed, after


def _read_score(line: Line, seed: int, after: int) -> TaskResult:
    n = line.take("n", (int,))
    if n < 1:
        raise line.error("n is below 1", n)
    score = Score(
        task=line.take("task", (str,)),
        metric=line.take("metric", (str,)),
        value=float(line.number("value")),
        low=line.bound("low"),
        high=line.bound("high"),
        n=n,
        outcomes=tuple(float(value) for value in line.numbers("outcomes", (list,))),
        metrics=line.numbers("metrics", (dict,)),
        answers=line.texts("answers"),
    )
    return TaskResult(seed, after, line.take("trained", (str, type(None)), None), score)


def _read_cost(line: Line, seed: int, after: int) -> StepCost:
    cost = Cost(
        train_s=float(line.number("train_s", 0.0)),
        eval_s=float(line.number("eval_s", 0.0)),
        n_steps=line.take("n_steps", (int,), 0),
        n_tokens=line.take("n_tokens", (int,), 0),
        peak_memory_bytes=line.take("peak_memory_bytes", (int,), 0),
        learning_rate=float(line.number("learning_rate", 0.0)),
        batch_size=line.take("batch_size", (int,), 0),
        n_epochs=line.take("n_epochs", (int,), 0),
        best_epoch=line.take("best_epoch", (int,), None),
        mean_loss=line.number("mean_loss", None),
        strategy_bytes=line.numbers("strategy_bytes", (dict,)),
        strategy_facts=line.objects("strategy_facts"),
    )
    trained = line.take("trained", (str, type(None)), None)
    return StepCost(seed, after, trained, cost)

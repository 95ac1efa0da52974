"""In which order, how often and with how many rows the tasks of a stream are learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from everlearn.errors import ConfigError, StreamError, describe, nearest
from everlearn.seeds import seed_for
from everlearn.streams.apart import keep_apart
from everlearn.streams.sampling import groups_of, partition, select_rows, subset
from everlearn.types import Rows, Stream, Task, TensorRows

Sizes = int | Mapping[str, int] | Sequence[int] | None


@dataclass(frozen=True)
class Schedule:
    """What is learned step by step, and what is measured.

    `steps` are the tasks in the order of learning, where a name may come again; `stream` holds each task once, in the
    order of its first step, with all the rows that its steps train on.
    """

    stream: Stream
    steps: tuple[Task, ...]


def apply_schedule(
    stream: Stream,
    *,
    order: Sequence[str | int] | None = None,
    shuffle: bool = False,
    rounds: int = 1,
    split_rounds: bool = False,
    per_task: Sizes = None,
    per_task_eval: Sizes = None,
    seed: int = 0,
) -> Schedule:
    """Return the schedule of a stream.

    Args:
        stream: the tasks to choose from.
        order: names or indices of tasks in `stream`; tasks left out are dropped, one named twice is learned twice.
        shuffle: learn the tasks in an order given by the hash of (seed, round, name), a new one each round.
        rounds: how often the whole order is gone through.
        split_rounds: give each step of a task its own disjoint part of the task's rows, instead of all of them.
        per_task: training rows of a task over all its steps, at most: one number for all tasks, `{name: number}`, or
            a list with one number for each task of `order`. Each class keeps its share.
        per_task_eval: evaluation rows of a task, at most, in the same ways.
        seed: decides the order where shuffled, and which rows are taken.

    Returns:
        The schedule. Rows are a fixed function of the stream, the sizes and the seed, whatever the order.

    Raises:
        ConfigError: if a task is unknown, a number is below 1, or a task has fewer rows than steps to split them over.
    """
    if rounds < 1:
        raise ConfigError(describe("schedule.rounds", "is too small", rounds, "Allowed: 1 or more"))
    names = _names(stream, order)
    unique = list(dict.fromkeys(names))
    train_sizes = _sizes("schedule.per_task", per_task, names, stream)
    eval_sizes = _sizes("schedule.per_task_eval", per_task_eval, names, stream)
    tasks = {
        task.name: replace(
            task,
            train=_take(task, task.train, train_sizes.get(task.name), (seed, "schedule", task.name, "train")),
            evaluation=_take(task, task.evaluation, eval_sizes.get(task.name), (seed, "schedule", task.name, "eval")),
        )
        for task in stream
        if task.name in unique
    }
    sequence = [name for number in range(rounds) for name in _round(names, shuffle, seed, number)]
    first_seen = tuple(tasks[name] for name in dict.fromkeys(sequence))
    steps = _split_steps(sequence, tasks, seed) if split_rounds else tuple(tasks[name] for name in sequence)
    return Schedule(Stream(stream.name, first_seen), steps)


def checked_stream(stream: Stream, order: Sequence[str | int] | None = None) -> Stream:
    """Return the stream, its tasks (or those of `order`) checked as far as it needs no model.

    Raises:
        StreamError: if one trains on an evaluation item of another or its own (`everlearn.streams.apart`), or targets
            are no classes.
        ConfigError: if `order` names a task that is not there.
    """
    names = set(_names(stream, order))
    for task in stream:
        if task.name in names:
            _check_targets(task)
    return keep_apart(stream, names)


def _check_targets(task: Task) -> None:
    """Check that no row of tensors has a mark for "no target" (-100, -1) where a class is wanted.

    Raises:
        StreamError: with the role, how many rows, and the first one.
    """
    for role, rows in (("train", task.train), ("validation", task.validation), ("evaluation", task.evaluation)):
        if isinstance(rows, TensorRows) and not rows.y.is_floating_point() and rows.y.ndim == 1 and (rows.y < 0).any():
            bad = (rows.y < 0).nonzero().flatten().tolist()
            what = f"{role} rows have no class as target, the first is row {bad[0] + 1} with {rows.y[bad[0]].item()}"
            way_out = "Take them out: classes are numbered from 0, and -1 and -100 mark rows without one"
            raise StreamError(describe(f"task {task.name!r}", what, f"{len(bad)} of {len(rows)} rows", way_out))


def _names(stream: Stream, order: Sequence[str | int] | None) -> list[str]:
    known = [task.name for task in stream]
    if order is None:
        return known
    if isinstance(order, str) or not order:
        raise ConfigError(describe("schedule.order", "must be a list of tasks", order, f"Tasks: {', '.join(known)}"))
    names = []
    for position, entry in enumerate(order):
        where = f"schedule.order[{position}]"
        if isinstance(entry, str) and entry in known:
            names.append(entry)
        elif isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < len(known):
            names.append(known[entry])
        elif isinstance(entry, str):
            way_out = f"{nearest(entry, known)}Tasks: {', '.join(known)}"
            raise ConfigError(describe(where, "is no task of the stream", entry, way_out))
        else:
            way_out = f"Allowed: a name, or 0 to {len(known) - 1}"
            raise ConfigError(describe(where, "is no task of the stream", entry, way_out))
    return names


def _round(names: list[str], shuffle: bool, seed: int, number: int) -> list[str]:
    if not shuffle:
        return names
    keyed = [
        (seed_for(seed, "order", number, name, names[:place].count(name)), name) for place, name in enumerate(names)
    ]
    return [name for _, name in sorted(keyed)]


def _sizes(where: str, sizes: Sizes, names: list[str], stream: Stream) -> dict[str, int]:
    """Return the wanted number of rows of each task that has a limit."""
    unique = list(dict.fromkeys(names))
    known = [task.name for task in stream]
    if sizes is None:
        return {}
    if isinstance(sizes, Mapping):
        for name in sizes:
            if name not in known:
                way_out = f"{nearest(name, known)}Tasks: {', '.join(known)}"
                raise ConfigError(describe(where, "is no task of the stream", name, way_out))
        wanted = dict(sizes)
    elif isinstance(sizes, int):
        wanted = dict.fromkeys(unique, sizes)
    elif not isinstance(sizes, str) and len(sizes) == len(unique):
        wanted = dict(zip(unique, sizes, strict=True))
    else:
        way_out = f"Give one number for each of: {', '.join(unique)}"
        raise ConfigError(describe(where, "has the wrong number of sizes", sizes, way_out))
    for name, size in wanted.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(describe(f"{where} of {name!r}", "is no number of rows", size, "Allowed: 1 or more"))
    return wanted


def _take(task: Task, rows: Rows, size: int | None, purpose: tuple[object, ...]) -> Rows:
    if size is None or size >= len(rows):
        return rows
    return select_rows(rows, subset(len(rows), size, groups_of(task, rows), *purpose))


def _split_steps(sequence: list[str], tasks: dict[str, Task], seed: int) -> tuple[Task, ...]:
    parts: dict[str, list[list[int]]] = {}
    for name, task in tasks.items():
        n_steps, n_rows = sequence.count(name), len(task.train)
        if n_rows < n_steps:
            way_out = "Lower rounds, raise per_task, or leave split_rounds out"
            what = f"task {name!r} has fewer rows than steps"
            raise ConfigError(describe("schedule.split_rounds", what, f"{n_rows} rows, {n_steps} steps", way_out))
        parts[name] = partition(n_rows, n_steps, groups_of(task, task.train), seed, "rounds", name)
    waiting = {name: iter(own) for name, own in parts.items()}
    return tuple(replace(tasks[name], train=select_rows(tasks[name].train, next(waiting[name]))) for name in sequence)

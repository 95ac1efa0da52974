"""Countdown data as Parquet files, a folder an operator group, in the record shape that verl's trainers read.

>>> FIELDS[:5]
('data_source', 'prompt', 'ability', 'reward_model', 'extra_info')
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from everlearn.errors import ConfigError, StateError, check_choice, describe
from everlearn.streams.countdown.draw import SPLITS, Problems, draw_problems
from everlearn.streams.countdown.groups import Space, folder_of
from everlearn.streams.countdown.prompts import PROMPTS, answer_of, prompt_of

ROWS = 10_000  # of a row group
_INT = pa.int32()
_MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
_TRUTH = pa.struct({"target": _INT, "numbers": pa.list_(_INT), "operators": pa.string()})
_DIFFICULTY = {"solution": pa.string(), "n_solutions": _INT, "needs_new_operator": pa.bool_()}
SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": _MESSAGES,
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": _TRUTH}),
        "extra_info": pa.struct({"split": pa.string(), "index": pa.int64(), "group": pa.string(), **_DIFFICULTY}),
        "completion": _MESSAGES,
        "group": pa.string(),
        "operators": pa.string(),
        "numbers": pa.list_(_INT),
        "target": _INT,
        **_DIFFICULTY,
    }
)
FIELDS = tuple(SCHEMA.names)


@dataclass(frozen=True)
class Order:
    """What to generate.

    Args:
        space: which problems; its group is one of `groups`, in turn.
        groups: names of operator groups, or operators.
        n_train, n_test: problems of each group.
        prompt: a style of `everlearn.streams.countdown.prompts.PROMPTS`.
        seed: which problems are drawn, from 0.

    Raises:
        ConfigError: if a field is out of range, or two groups have one folder.
    """

    space: Space = field(default_factory=Space)
    groups: tuple[str, ...] = ("0", "1", "2", "3")
    n_train: int = 100_000
    n_test: int = 1_000
    prompt: str = "instruct"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.groups or len(set(self.groups)) < len(self.groups):
            raise ConfigError(describe("countdown.groups", "are no different groups", self.groups, "Give each once"))
        for group in self.groups:
            replace(self.space, group=group)
        for name, value in (("n_train", self.n_train), ("n_test", self.n_test)):
            if type(value) is not int or value < 1:
                way_out = "Give a whole number of at least 1"
                raise ConfigError(describe(f"countdown.{name}", "is no number of problems", value, way_out))
        if type(self.seed) is not int or self.seed < 0:
            raise ConfigError(describe("countdown.seed", "is no seed", self.seed, "Give a whole number from 0"))
        check_choice("countdown.prompt", self.prompt, PROMPTS)


def generate(
    order: Order, out: Path, n_processes: int = 1, done: Callable[[str, list[str]], None] = lambda group, notes: None
) -> list[Path]:
    """Write `out/GROUP/train.parquet` and `out/GROUP/test.parquet` for each group; return their paths.

    Each file appears whole or not at all, and is the same for the same order, whatever the number of processes.

    Args:
        order: what to generate.
        out: a folder; made if it isn't there.
        n_processes: groups that are worked on at a time.
        done: called when a group is written, with its name and sentences on it.

    Raises:
        ConfigError: if one of the files exists.
        StreamError: if a group has too few different problems.
        StateError: if a file can't be written.

    Cost: memory of about 60 bytes a problem of the groups that are worked on, and 250 MB for each of them.
    """
    paths = {group: [out / folder_of(group) / f"{split}.parquet" for split in SPLITS] for group in order.groups}
    for path in (path for of_group in paths.values() for path in of_group):
        if path.exists():
            raise ConfigError(describe(str(path), "exists", path.name, "Choose another folder, or remove the file"))
    n_processes = min(n_processes, len(order.groups))
    if n_processes <= 1:
        for group in order.groups:
            done(group, write_group(order, group, out))
    else:
        _in_processes(order, out, n_processes, done)
    return [path for group in order.groups for path in paths[group]]


def write_group(order: Order, group: str, out: Path) -> list[str]:
    """Write one group's files; return sentences on it that the user should know."""
    space = replace(order.space, group=group)
    problems, notes = draw_problems(space, order.n_train, order.n_test, order.seed)
    for split in SPLITS:
        _write(out / folder_of(group) / f"{split}.parquet", problems[split], split, space, order)
    return notes


def _in_processes(order: Order, out: Path, n_processes: int, done: Callable[[str, list[str]], None]) -> None:
    """Processes that are started afresh: they need no torch, and forking one that has it is unsafe."""
    most_work_first = sorted(order.groups, key=lambda group: -len(replace(order.space, group=group).operators))
    with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
        working = {pool.submit(write_group, order, group, out): group for group in most_work_first}
        try:
            for finished in as_completed(working):
                done(working[finished], finished.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write(path: Path, parts: Sequence[Problems], split: str, space: Space, order: Order) -> None:
    """Write the problems in an order drawn by seed, row group by row group, under another name until all is there."""
    sizes = np.concatenate([np.full(len(part), place, np.int8) for place, part in enumerate(parts)])
    rows = np.concatenate([np.arange(len(part)) for part in parts])
    shuffled = np.random.default_rng([order.seed, *f"{space.group} {split}".encode()]).permutation(len(rows))
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(aside, SCHEMA, compression="zstd") as writer:
                for start in range(0, len(rows), ROWS):
                    chosen = shuffled[start : start + ROWS]
                    table = _table(parts, sizes[chosen], rows[chosen], start, split, space, order.prompt)
                    writer.write_table(table, row_group_size=ROWS)
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def _table(
    parts: Sequence[Problems], sizes: np.ndarray, rows: np.ndarray, start: int, split: str, space: Space, style: str
) -> pa.Table:
    """Return the records of some rows of the parts, in their order."""
    m = len(rows)
    numbers, solutions = np.empty(m, object), np.empty(m, object)
    targets, n_solutions, needed = np.empty(m, np.int32), np.empty(m, np.int32), np.empty(m, bool)
    for place, part in enumerate(parts):
        here = np.flatnonzero(sizes == place)
        some = part[rows[here]]
        # cell by cell: lists of one length would become a matrix
        for i, of_problem, solution in zip(here, some.numbers.tolist(), some.solutions(space.operators), strict=True):
            numbers[i], solutions[i] = of_problem, solution
        targets[here], n_solutions[here], needed[here] = some.targets, some.n_solutions, some.n_without_newest == 0
    asked = [prompt_of(*one, space.operators, style) for one in zip(numbers, targets.tolist(), strict=True)]
    truth = {
        "target": pa.array(targets), "numbers": pa.array(numbers, pa.list_(_INT)),
        "operators": _same(space.operators, m),
    }  # fmt: skip
    difficulty = {
        "solution": pa.array(solutions, pa.string()), "n_solutions": pa.array(n_solutions),
        "needs_new_operator": pa.array(needed),
    }  # fmt: skip
    where = {
        "split": _same(split, m), "index": pa.array(np.arange(start, start + m)), "group": _same(space.group, m),
    }  # fmt: skip
    columns = {
        "data_source": _same(f"countdown_{folder_of(space.group)}", m),  # verl reports its scores by it
        "prompt": _messages("user", asked),
        "ability": _same("math", m),
        "reward_model": _struct({"style": _same("rule", m), "ground_truth": _struct(truth)}),
        "extra_info": _struct(where | difficulty),
        "completion": _messages("assistant", [answer_of(solution) for solution in solutions]),
        "group": _same(space.group, m),
        **truth,
        **difficulty,
    }
    return pa.table({name: columns[name] for name in FIELDS}, schema=SCHEMA)


def _same(value: str, m: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), m)


def _struct(columns: dict[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def _messages(role: str, texts: Sequence[str]) -> pa.ListArray:
    """Return one message a row."""
    messages = _struct({"role": _same(role, len(texts)), "content": pa.array(texts, pa.string())})
    return pa.ListArray.from_arrays(pa.array(np.arange(len(texts) + 1, dtype=np.int32)), messages)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """As `everlearn.state.writing`, which would have each process wait for torch."""
    try:
        yield
    except OSError as error:
        way_out = "Free some space, or see to the folder's permissions"
        raise StateError(
            describe(str(path), f"can't be written ({error.strerror or error})", path.name, way_out)
        ) from error

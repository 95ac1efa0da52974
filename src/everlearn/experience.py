"""A memory of rows that its user fills, and that a trainer replays where it is told to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.memory.rows import JoinedRows, n_rows, pick, rows_of, size
from everlearn.seeds import generator_for
from everlearn.strategies.replay import ASK_THE_MODEL, SELECTIONS, Replay
from everlearn.strategy import learned, why_apart
from everlearn.streams.labels import with_labels
from everlearn.streams.loading import TaskOptions
from everlearn.streams.sampling import select_rows
from everlearn.task_data import parts_of
from everlearn.trainer import ContinualTrainer
from everlearn.trainer_inputs import read_task
from everlearn.types import IGNORED, Mixture, Row, Step, Task
from everlearn.way import Run

SAMPLING = {"random": "reservoir", **{name: name for name in SELECTIONS}}


def name_of(task_id: int | str) -> str:
    """Return what a task is called: its id, if that is a text."""
    return task_id if isinstance(task_id, str) else f"task_{task_id}"


@dataclass
class StoredReplay(Replay):
    """Replays what is stored by `store`; it rests where it isn't active, and keeps nothing by itself."""

    n_drawn_: int = learned(int)  # samples so far

    name: ClassVar[str] = "experience_replay"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.active = False

    def begin_task(self, run: Run, task: Task) -> None:
        if self.active:
            super().begin_task(run, task)

    def train_data(self, mixture: Mixture, run: Run) -> Mixture:
        self._groups = range(0)
        return super().train_data(mixture, run) if self.active else mixture

    def penalty(self, step: Step) -> torch.Tensor | None:
        return super().penalty(step) if self.active else None

    def end_task(self, run: Run, task: Task) -> None:
        """Keep nothing: what is kept is stored."""

    def store(self, run: Any, task: Task) -> None:
        """Let a task's training rows into the memory, as `Replay` does at the end of one."""
        super().begin_task(run, task)
        super().end_task(run, task)


@dataclass
class Alone:
    """Stands for a run where a memory is filled before any trainer uses it."""

    seed: int
    tasks: dict[str, Task] = field(default_factory=dict)
    position: int = 0
    memory: None = None


class ExperienceReplay:
    """Rows of earlier tasks within a budget, chosen by a strategy; `LifelongTrainer` mixes them into what it learns.

    Args:
        memory_size: rows over all tasks.
        sampling_strategy: which rows are kept: random (a uniform sample of all that came), balanced (equally many of
            each task and class, drawn), ring (the newest of each), uncertainty (what the model is least certain of),
            herding (what comes closest to the mean embedding of each class), loss (what the model does worst on),
            gradient (what pulls the weights apart). See the strategy `replay` for their sources.
        ratio: old rows in a batch for each new one.
        seed: of what is drawn before a trainer uses the memory; then its own.

    Raises:
        ConfigError: if a setting is unknown or out of range.
    """

    def __init__(
        self, memory_size: int = 1000, sampling_strategy: str = "random", *, ratio: float = 1.0, seed: int = 0
    ):
        check_choice("sampling_strategy", sampling_strategy, SAMPLING)
        check_number("memory_size", memory_size, low=0)
        self.strategy = StoredReplay(memory_size, selection=SAMPLING[sampling_strategy], ratio=ratio)
        self._alone = Alone(seed)
        self._trainer: ContinualTrainer | None = None

    @classmethod
    def of(cls, trainer: ContinualTrainer) -> "ExperienceReplay | None":
        """Return the memory that a trainer uses, None if it has none."""
        for strategy in trainer.strategies:
            if isinstance(strategy, StoredReplay):
                replay = cls(seed=trainer.run.seed)
                replay.strategy, replay._trainer = strategy, trainer
                return replay
        return None

    def __len__(self) -> int:
        return size(self.strategy.memory_)

    @property
    def _run(self) -> Run | Alone:
        return self._trainer.run if self._trainer is not None and self._trainer.learned else self._alone

    def store_examples(self, task_data: Any, task_id: int | str) -> None:
        """Let a task's training rows into the memory, all but those that a task learned is measured on.

        Args:
            task_data: as `LifelongTrainer.learn_task` takes it.

        Raises:
            ConfigError: if the model is to choose, and none uses the memory yet; or it never learned the task.
            StreamError: if rows are bad.
        """
        run, task = self._run, _all_rows(name_of(task_id), task_data, self._alone.seed)
        if isinstance(run, Run):
            self.strategy.store(run, _admitted(task, self._trainer))
            return
        if self.strategy.selection in ASK_THE_MODEL:
            way_out = "Call learn_task_with_replay first, which tells it whose model; or choose random or balanced"
            what = "asks a model which rows to keep, and none has learned with this memory yet"
            raise ConfigError(describe("sampling_strategy", what, self.strategy.selection, way_out))
        known = run.tasks.get(task.name)
        if known is not None and task.labels:
            task = with_labels(task, known.labels)
        run.tasks[task.name] = task
        self.strategy.store(run, task)
        run.tasks[task.name] = replace(task, train=select_rows(task.train, []))
        run.position += 1

    def sample(self, n: int = 32) -> list[Row]:
        """Return rows drawn uniformly from the memory, at most all of it, each once: as they were given, with `task`.

        Each call draws others, by the seed.
        """
        check_number("sample", n, low=0)
        run, memory = self._run, self.strategy.memory_
        places = [(name, i) for name, stored in memory.items() for i in range(n_rows(stored))]
        generator = generator_for(run.seed, "experience", self.strategy.n_drawn_)
        self.strategy.n_drawn_ += 1
        drawn = torch.randperm(len(places), generator=generator)[:n].tolist()
        rows = {name: rows_of(stored, run.memory) for name, stored in memory.items()}
        return [_as_given(run.tasks[name], rows[name][i]) for name, i in (places[place] for place in drawn)]

    def join(self, trainer: ContinualTrainer) -> None:
        """Let a trainer replay this memory from the next task on; another one that it used stays whole, and rests.

        Raises:
            ConfigError: if it holds rows of a task that the trainer never learned, or can't stand beside a strategy.
        """
        for strategy in trainer.strategies:
            reason = why_apart(type(strategy), Replay)
            if reason is not None:
                way_out = f"{reason}; call learn_task, or choose another technique"
                raise ConfigError(describe("replay", f"can't stand beside {strategy.name}", "replay", way_out))
        if trainer is not self._trainer:
            run, memory = self._run, {}
            for name, stored in self.strategy.memory_.items():
                task = _admitted(replace(run.tasks[name], train=rows_of(stored, run.memory)), trainer)
                memory[name] = pick(task.train, range(len(task.train)))
            self.strategy.memory_, self._trainer = memory, trainer
        if not any(strategy is self.strategy for strategy in trainer.strategies):
            trainer.use(self.strategy)

    @contextmanager
    def replayed_by(self, trainer: ContinualTrainer) -> Iterator[None]:
        """Let a trainer replay this memory while it learns within the block."""
        self.join(trainer)
        self.strategy.active = True
        try:
            yield
        finally:
            self.strategy.active = False


def _all_rows(name: str, data: Any, seed: int) -> Task:
    """Return a task all of whose rows are to be trained on, but those that its user holds out."""
    parts = parts_of(data)
    options: TaskOptions = from_mapping(TaskOptions, parts.pop("options", {}), "options")
    task, _ = read_task(name, options, 1, (seed, name), **parts)
    held_out = not isinstance(parts.get("train"), Task) and not {"evaluate", "val_loader"} & set(parts)
    rows = task.train
    if held_out and len(task.evaluation):  # by reading, which does not know that nothing is measured here
        rows = JoinedRows(rows, task.evaluation)
    return replace(task, train=rows, evaluation=[], validation=None)


def _admitted(task: Task, trainer: ContinualTrainer) -> Task:
    """Return a task with those of its rows that the trainer may be trained on, as its model takes them."""
    if task.name not in trainer.learned:
        way_out = f"Learn it first; tasks: {', '.join(trainer.learned) or 'none'}"
        raise ConfigError(describe("replay", "holds rows of a task that was not learned", task.name, way_out))
    return trainer.admitted(task)


def _as_given(task: Task, row: Row) -> Row:
    """Return a stored row with names in place of the numbers of its labels."""
    row = {**row, "task": task.name}
    if task.kind == "classify":
        return {**row, "label": task.labels[row["label"]]}
    if task.kind == "multilabel":
        return {**row, "labels": [task.labels[label] for label in row["labels"]]}
    if task.kind == "tag":
        return {**row, "tags": [tag if tag == IGNORED else task.labels[tag] for tag in row["tags"]]}
    return row

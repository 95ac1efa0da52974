"""The engine from Python: teach a model one task after another, without a recipe or a stream known beforehand."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from everlearn.config import build, build_strategies, from_mapping
from everlearn.errors import ConfigError, StreamError, describe, nearest
from everlearn.evaluation.score import metric_names
from everlearn.learners.devices import start_accelerator
from everlearn.learners.sft import SupervisedLearner
from everlearn.models.load import ModelConfig, load_model
from everlearn.runs import Listener, Run
from everlearn.strategy import Strategy
from everlearn.streams.apart import Apart
from everlearn.streams.fitting import check_targets
from everlearn.streams.loading import TaskOptions, build_task
from everlearn.types import Rows, Score, Task, TensorRows

_OPTIMIZER_KEYS = {"type": "optimizer", "lr": "learning_rate"}  # in `config`: the usual name -> the learner's field
_STRATEGY_KEYS = {"lambda": "strength"}


@dataclass(frozen=True)
class TaskScores(Mapping):
    """Scores now, by task; and right after each task was learned, so that what was lost shows. Prints as a table."""

    now: dict[str, Score]
    learned: dict[str, Score]

    def __getitem__(self, task: str) -> Score:
        return self.now[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)

    def average(self) -> float:
        """Return the mean of the scores over tasks."""
        return sum(score.value for score in self.now.values()) / len(self.now)

    def __str__(self) -> str:
        table = Table("task", "metric", "when learned", "now", "95% interval", "n")
        for name, score in self.now.items():
            interval = "–" if score.low is None else f"{score.low:.3f} to {score.high:.3f}"
            cells = (score.metric, f"{self.learned[name].value:.3f}", f"{score.value:.3f}", interval, str(score.n))
            table.add_row(name, *cells)
        console = Console(width=100, color_system=None)
        with console.capture() as capture:
            console.print(table)
        return capture.get().rstrip()


class ContinualTrainer:
    """Teaches one model task after task.

    Args:
        model: `pocket`, a folder, a hub id, a ModelConfig or its mapping; or a plain `nn.Module`, trained in place.
        strategies: names, mappings with a name and options, or strategy objects.
        learner: options of the supervised learner, such as {"epochs": 5, "batch_size": 16}.
        config: the same in another spelling: {"optimizer": {"type": "adam", "lr": 0.001},
            "continual_strategy": {"ewc": {"enabled": True, "lambda": 100.0}}, "training": {learner options}}.
        seed: of adapters, heads and the order of rows.
        device: auto, cpu or cuda.

    Raises:
        ConfigError: if an option is unknown or out of range.
    """

    def __init__(
        self,
        model: str | nn.Module | ModelConfig | Mapping[str, Any] = "pocket",
        strategies: Sequence[str | Mapping[str, Any] | Strategy] = (),
        learner: Mapping[str, Any] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "auto",
        listener: Listener | None = None,
    ):
        options = {**_learner_options(config or {}), **(learner or {})}
        self._learner: SupervisedLearner = build("learner", {"name": "sft", **options}, "learner")
        self._strategies = build_strategies([*strategies, *_strategies_of(config or {})])
        self._model_config = _model_config(model)
        self._seed = seed
        self._device = device
        self._listener = listener or Listener()
        self._run: Run | None = None
        self._apart = Apart()
        self._learned_scores: dict[str, Score] = {}

    @property
    def run(self) -> Run:
        """The run behind the trainer: model, tasks, strategies."""
        if self._run is None:
            raise ConfigError(describe("ContinualTrainer", "no task was learned yet", None, "Call train_task first"))
        return self._run

    def train_task(
        self,
        name: str | None = None,
        train: str | Path | Rows | None = None,
        evaluate: str | Path | Rows | None = None,
        *,
        validation: str | Path | Rows | None = None,
        train_loader: DataLoader | None = None,
        val_loader: DataLoader | None = None,
        task_id: int | None = None,
        task_name: str | None = None,
        num_epochs: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Score | None:
        """Learn one task and score it.

        Args:
            name, task_name: what to call it; without one, `task_<task_id>`.
            train, evaluate, validation: JSONL, CSV or Parquet files, or rows in memory. Without `evaluate` a fifth of
                the training rows is held out. `validation` is for early stopping; where that can act (more epochs than
                its patience), a tenth is held out for it beside the fifth.
            train_loader, val_loader: for plain modules: batches (x, y), read once into memory; `val_loader` is what
                the task is measured on.
            num_epochs: instead of the learner's.
            options: how files are read: `load_task`'s options, such as {"columns": {"prompt": "question"}}. Of them
                `allow_overlap` holds for loaders too: rows to train on may be evaluation items of this task or another.

        Returns:
            The score on the evaluation items, or None where there are none.

        Raises:
            StreamError: if data is missing or bad, a row is trained on that any task learned here is measured on, or
                the other way round. TrainingError: if the loss is not finite.
        """
        name = name or task_name or f"task_{task_id if task_id is not None else len(self._learned_scores)}"
        batch_size = None
        chosen: TaskOptions = from_mapping(TaskOptions, dict(options or {}), "options")
        learner = _changed(self._learner, {} if num_epochs is None else {"epochs": num_epochs})
        chosen = replace(chosen, wants_validation=learner.uses_validation)
        if train_loader is not None:
            task = Task(name, "tensor", _tensors(train_loader), _tensors(val_loader, like=train_loader))
            task = replace(task, allow_overlap=chosen.allow_overlap)
            check_targets(task)
            batch_size = train_loader.batch_size
        elif train is not None:
            task = build_task(name, train, evaluate, validation, chosen)
        else:
            way_out = "Pass train=FILE or rows, or train_loader=a DataLoader"
            raise StreamError(describe(f"train_task {name!r}", "has nothing to train on", train, way_out))
        metric_names(task)
        apart, shared = self._apart.with_task(task)
        run = self._prepare(task, num_epochs, batch_size)
        self._apart = apart
        for note in (*task.notes, *shared):
            run.note(note)
        run.position = len(run.learned)
        run.tasks[task.name] = task
        run.learn(task)
        if len(task.evaluation) == 0:
            return None
        self._learned_scores[name] = run.score(task)
        return self._learned_scores[name]

    def evaluate_all_tasks(self) -> TaskScores:
        """Score the model as it is now on the evaluation items of every task learned."""
        run = self.run
        now = {name: run.score(run.tasks[name]) for name in self._learned_scores}
        return TaskScores(now, dict(self._learned_scores))

    def _prepare(self, task: Task, num_epochs: int | None, batch_size: int | None) -> Run:
        changes = {"epochs": num_epochs, "batch_size": batch_size}
        learner = _changed(self._learner, {key: value for key, value in changes.items() if value is not None})
        if self._run is None:
            accelerator = start_accelerator(precision=learner.precision, device=self._device)
            model = load_model(self._model_config, [task], self._seed)
            self._run = Run(
                model, learner, self._strategies, accelerator, seed=self._seed, listener=self._listener
            )  # fmt: skip
        self._run.learner = learner
        return self._run


def _changed(learner: SupervisedLearner, changes: dict[str, Any]) -> SupervisedLearner:
    return SupervisedLearner(**{**{f.name: vars(learner)[f.name] for f in fields(learner)}, **changes})


def _model_config(model: str | nn.Module | ModelConfig | Mapping[str, Any]) -> ModelConfig | nn.Module:
    if isinstance(model, str):
        return ModelConfig(model)
    if isinstance(model, Mapping):
        return from_mapping(ModelConfig, model, "model")
    return model


def _learner_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the learner's options out of `config`."""
    sections = ("optimizer", "continual_strategy", "training")
    for key in config:
        if key not in sections:
            way_out = f"{nearest(key, sections)}Keys: {', '.join(sections)}"
            raise ConfigError(describe(f"config.{key}", "is unknown", key, way_out))
    optimizer = config.get("optimizer", {})
    return {**{_OPTIMIZER_KEYS.get(key, key): value for key, value in optimizer.items()}, **config.get("training", {})}


def _strategies_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the strategies that `config` enables."""
    entries = []
    for name, options in config.get("continual_strategy", {}).items():
        named = {_STRATEGY_KEYS.get(key, key): value for key, value in options.items() if key != "enabled"}
        if options.get("enabled", True):
            entries.append({"name": name, **named})
    return entries


def _tensors(loader: DataLoader | None, like: DataLoader | None = None) -> TensorRows:
    """Read a loader's batches (x, y) into memory, in the dataset's own order where the loader only shuffles it."""
    if loader is None:
        empty = _tensors(like)
        return empty[:0]
    source = loader
    if isinstance(loader, DataLoader) and isinstance(loader.sampler, RandomSampler | SequentialSampler):
        source = DataLoader(loader.dataset, batch_size=loader.batch_size or 1, collate_fn=loader.collate_fn)
    pairs = []
    for batch in source:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            way_out = "Use a DataLoader over pairs (input tensor, target tensor)"
            raise StreamError(describe("train_loader", "a batch is no pair (x, y)", type(batch).__name__, way_out))
        pairs.append(batch)
    if not pairs:
        raise StreamError(describe("train_loader", "is empty", loader, "Give it at least one batch"))
    return TensorRows(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]))

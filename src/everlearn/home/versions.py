"""A version brought to life: the model with its weights and strategies, and its scores on the home's tasks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import torch

from everlearn.config import build_strategies
from everlearn.errors import StateError, TrainingError, describe
from everlearn.evaluation.gain import by_log_likelihood
from everlearn.home.settings import Settings
from everlearn.home.store import Store
from everlearn.home.tasks import item_of
from everlearn.learners.devices import start_accelerator
from everlearn.listener import Listener
from everlearn.models.load import load_model
from everlearn.saving import Saving
from everlearn.strategy import Strategy
from everlearn.types import Score, Task
from everlearn.way import Run


@dataclass
class Versions:
    """Opens versions of a home as runs, and scores them.

    Attributes:
        tasks: all tasks that the home knows, with their evaluation items; without training rows.
    """

    store: Store
    settings: Settings
    tasks: dict[str, Task]
    listener: Listener = field(default_factory=Listener)

    def open(
        self,
        number: int,
        tasks: Mapping[str, Task],
        *,
        learner: Any = None,
        strategies: list[Strategy] | None = None,
        seed: int | None = None,
        saving: Saving | None = None,
    ) -> Run:
        """Return a version as a run over `tasks`, ready to score or to learn on.

        Args:
            strategies: by default those that the version was learned with.
            learner, seed, saving: of a learning; by default the home's, and nothing saved.

        Raises:
            ModelError: if the model can't be loaded. StateError: if the version is damaged.
        """
        learner = learner or self.settings.build_learner()
        accelerator = start_accelerator(precision=learner.precision, device=self.settings.device)
        model = load_model(self.settings.model, list(tasks.values()), self.settings.seed)
        run = Run(
            model=model,
            learner=learner,
            strategies=build_strategies(self.store.version(number).strategies) if strategies is None else strategies,
            accelerator=accelerator,
            seed=self.settings.seed if seed is None else seed,
            tasks=dict(tasks),
            saving=saving or Saving(),
            memory=self.store.memory,
            library=self.store.library,
            eval_batch_size=self.settings.evaluation.batch_size,
            keep_answers=self.settings.evaluation.answers,
            listener=self.listener,
        )
        state = self.store.state(number)
        if state is not None:
            run.load_state(state)
        return run

    def learned_tasks(self, number: int) -> dict[str, Task]:
        """Return the tasks that a version has learned.

        Raises:
            StateError: if the home's record of one is missing.
        """
        learned = dict.fromkeys(self.store.version(number).learned)
        missing = [name for name in learned if name not in self.tasks]
        if missing:
            way_out = "Restore the folder from a copy of the home"
            raise StateError(describe(str(self.store.tasks), "tasks are missing", missing, way_out))
        return {name: self.tasks[name] for name in learned}

    def items(self, name: str) -> list[str]:
        """Return the names of a task's evaluation items, in order."""
        return [item_of(row) for row in self.tasks[name].evaluation]

    def scores(
        self, number: int, names: Sequence[str], *, fresh: bool = False, stand_in: bool = False
    ) -> dict[str, Score]:
        """Return a version's scores on tasks: those kept, as far as they are of the same items on the same device and
        software; the others are measured now, and kept. `fresh` measures all.

        Args:
            stand_in: the log-likelihood instead of the tasks' own metrics.

        Raises:
            StateError, ModelError: if the version can't be opened.
        """
        where = self.measured_on()
        found: dict[str, Score] = {}
        for name in [] if fresh else names:
            kept = self.store.score(number, name, self.items(name), where, stand_in=stand_in)
            if kept is not None:
                found[name] = kept
        missing = {name: self.tasks[name] for name in names if name not in found}
        if missing:
            run = self.open(number, {**self.learned_tasks(number), **missing})
            for name, task in missing.items():
                found[name] = finite_score(run, by_log_likelihood(task) if stand_in else task)
                if not fresh:
                    folder = self.store.path / "scores" / f"{number:06d}"
                    self.store.keep_score(folder, found[name], self.items(name), where, stand_in=stand_in)
        return {name: found[name] for name in names}

    def measured_on(self, precision: str | None = None) -> str:
        """Return what a score depends on besides version and items: device, precision, libraries."""
        on_gpu = self.settings.device != "cpu" and torch.cuda.is_available()
        device = torch.cuda.get_device_name() if on_gpu else "cpu"
        precision = precision or self.settings.build_learner().precision
        libraries = (f"{name} {metadata.version(name)}" for name in ("everlearn", "torch", "transformers"))
        return ", ".join([device, f"precision {precision}", f"batch {self.settings.evaluation.batch_size}", *libraries])


def finite_score(run: Run, task: Task) -> Score:
    """Return a run's score on a task.

    Raises:
        TrainingError: if it isn't a number: the weights are broken.
    """
    score = run.score(task)
    if not all(math.isfinite(value) for value in (score.value, *score.outcomes)):
        way_out = "Learn with a lower learner.learning_rate, or go back to an earlier version"
        raise TrainingError(describe(f"task {task.name!r}", "the score is not finite", score.value, way_out))
    return score

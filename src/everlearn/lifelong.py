"""Lifelong learning in a few words: a technique by name, a model, a trainer, a memory. `ContinualTrainer` does it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, StateError, describe
from everlearn.experience import ExperienceReplay, name_of
from everlearn.lifelong_meta import MetaLearner
from everlearn.lifelong_model import LifelongConfig, LifelongModel
from everlearn.state import make_folder, read_json, write_json
from everlearn.task_data import TaskConfig, parts_of
from everlearn.trainer import ContinualTrainer
from everlearn.trainer_results import Evaluation
from everlearn.types import Score

__all__ = ["ExperienceReplay", "LifelongConfig", "LifelongModel", "LifelongTrainer", "MetaLearner", "TaskConfig"]

CONFIG = "lifelong.json"


class LifelongTrainer:
    """Teaches a model task after task. Tasks are called by number (0 is `task_0`) or by a name of their own.

    Args:
        config: the model's, which may be left out.
    """

    def __init__(self, model: LifelongModel, config: LifelongConfig | None = None):
        if config is not None and config != model.config:
            way_out = "Give both the same, or leave it out here"
            raise ConfigError(describe("LifelongTrainer", "config is not the model's", config, way_out))
        self.model = model

    @property
    def replay(self) -> ExperienceReplay | None:
        """The memory that was given to `learn_task_with_replay` last."""
        return ExperienceReplay.of(self.model.trainer)

    def learn_task(self, task_id: int | str, task_data: Any, *, num_epochs: int | None = None) -> Score | None:
        """Learn a task and score it; nothing is replayed but what the technique itself keeps.

        Args:
            task_data: rows, a file, a `datasets.Dataset`, a data loader, {"train": ..., "test": ...} of these, or a
                `TaskConfig`; see `everlearn.task_data.parts_of`.

        Raises:
            StreamError, ConfigError, ModelError, TrainingError: as `ContinualTrainer.train_task`.
        """
        return self.model.trainer.train_task(name_of(task_id), num_epochs=num_epochs, **parts_of(task_data))

    def learn_task_with_replay(
        self, task_id: int | str, task_data: Any, replay: ExperienceReplay, *, num_epochs: int | None = None
    ) -> Score | None:
        """Learn a task with rows of the memory in each batch, and score it. `replay.store_examples` keeps its rows."""
        with replay.replayed_by(self.model.trainer):
            return self.learn_task(task_id, task_data, num_epochs=num_epochs)

    def evaluate_all_tasks(self) -> Evaluation:
        """Score all tasks learned now; with the metrics of the stream and their 95% intervals."""
        return Evaluation(self.model.trainer.evaluate_all_tasks(), self.model.trainer.metrics())

    def save(self, folder: str | Path) -> None:
        """Keep all that `load` needs to go on; see `ContinualTrainer.save`. The memory that it used last is part."""
        make_folder(Path(folder))
        write_json(Path(folder) / CONFIG, asdict(self.model.config))
        self.model.trainer.save(folder)

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> "LifelongTrainer":
        """Return the trainer that was saved; it goes on as that one would, bit for bit.

        Args:
            options: of `ContinualTrainer.load`: model, tokenizer, collate_fn, device, progress.
        """
        if not (Path(folder) / CONFIG).is_file():
            way_out = "Name the folder that trainer.save was given"
            raise StateError(describe("LifelongTrainer.load", "none was saved there", str(folder), way_out))
        model = LifelongModel(lifelong_config=from_mapping(LifelongConfig, read_json(Path(folder) / CONFIG), "config"))
        model.trainer = ContinualTrainer.load(folder, **options)
        return cls(model)

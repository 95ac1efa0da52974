"""Learning to learn from the data of tasks, from what a lifelong model has learned as the start."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, ModelError, describe
from everlearn.evaluation.predict import predict
from everlearn.experience import name_of
from everlearn.learners.meta import MetaLearner as Learner
from everlearn.learners.sft import SupervisedLearner
from everlearn.lifelong_model import LifelongModel
from everlearn.models.adapters import is_peft
from everlearn.models.given import Given
from everlearn.models.load import Model, ModelConfig, load_model
from everlearn.streams.loading import TaskOptions
from everlearn.task_data import parts_of
from everlearn.trainer_inputs import read_task
from everlearn.types import Score, Task
from everlearn.way import Run

GROWTH = ("add_rank", "add_neurons")
FOLLOWED = ("lora", "full", "labels", "soft_prompt", "prefix", *GROWTH)  # changes of structure that a copy can repeat


class MetaLearner(Learner):
    """Learns a start from which a few steps on a new task go far: MAML, or another algorithm of `docs/meta.md`.

    It learns in a copy of its own: a lifelong model stays as it is, and what it learned so far, heads aside, is where
    the copy begins. Classifiers get one head, in which tasks share the labels that they share.

    Args:
        model: a `LifelongModel`, or what `everlearn.MetaLearner` takes.
        inner_lr, outer_lr, adaptation_steps, options: see there.

    Raises:
        ConfigError: if a setting is unknown or out of range.
    """

    def __init__(
        self,
        model: LifelongModel | str | nn.Module | ModelConfig | Mapping[str, Any] = "pocket",
        inner_lr: float = 0.01,
        outer_lr: float = 0.001,
        adaptation_steps: int = 5,
        **options: Any,
    ):
        self._lifelong = model if isinstance(model, LifelongModel) else None
        if self._lifelong is not None:
            source = self._lifelong.trainer.source
            model = source.network if isinstance(source, Given) else source
            if isinstance(model, ModelConfig) and model.head == "task":
                model = replace(model, head="shared")
            options = {"seed": self._lifelong.config.seed, "device": self._lifelong.config.device, **options}
        super().__init__(model, inner_lr, outer_lr, adaptation_steps, **options)

    def meta_train(self, tasks: Sequence[Any] | Mapping[int | str, Any], n_steps: int = 60) -> list[float]:
        """Take so many outer steps; return the loss after adaptation of each.

        Args:
            tasks: the data of each, as `LifelongTrainer.learn_task` takes it, in a list or by task id.
        """
        named = tasks.items() if isinstance(tasks, Mapping) else enumerate(tasks)
        return self.fit([_task(name_of(task_id), data) for task_id, data in named], n_steps)

    @contextmanager
    def adapt(self, task_data: Any, n_steps: int | None = None) -> Iterator[Callable[..., Any]]:
        """Let the model be what a few steps on a task's rows make of it, within the block; give its `predict`.

            with meta.adapt(rows) as predict:
                labels = predict(texts)

        Args:
            n_steps: by default `adaptation_steps`; they are taken on `n_support` of the rows.
        """
        task = _adapted(task_data)
        with self.adapted(task, n_steps) as model:
            run = Run(model, SupervisedLearner(), [], self._accelerator, seed=self.seed, tasks={task.name: task})
            yield partial(predict, run, task)

    def score_after(self, task_data: Any, n_steps: int | None = None) -> Score:
        """Return the score on a task's held-out rows after a few steps on others of its rows."""
        return self.score(_adapted(task_data), n_steps)

    def _load(self, tasks: Sequence[Task]) -> Model:
        if self._lifelong is None:
            return super()._load(tasks)
        trainer, network = self._lifelong.trainer, self._model_config
        if not isinstance(network, nn.Module):
            model = super()._load(tasks)
            if trainer.learned:
                _go_on_from(trainer.run.model, model)
            return model
        if isinstance(network, PreTrainedModel) or is_peft(network):
            way_out = "Give it by its folder or hub id"
            what = "can't be copied for meta-learning, since it was handed over and is trained in place"
            raise ModelError(describe("model", what, type(network).__name__, way_out))
        return load_model(copy.deepcopy(network), tasks, self.seed, self.device.type)


def _adapted(data: Any) -> Task:
    """Return a task to adapt to; those of the same labels have the same name, and the same rows' draw."""
    task = _task("adapted", data)
    return replace(task, name=" ".join(["adapted", *task.labels]))


def _task(name: str, data: Any) -> Task:
    parts = parts_of(data)
    options: TaskOptions = from_mapping(TaskOptions, parts.pop("options", {}), "options")
    task, _ = read_task(name, options, 1, (name,), **parts)
    return replace(task, loader=None)


def _go_on_from(taught: Model, model: Model) -> None:
    """Give a model that was just loaded what another has learned, all but the heads.

    Raises:
        ConfigError: if a technique changed the structure of that one.
    """
    foreign = sorted({operation for operation, _ in taught.adapters.log} - set(FOLLOWED))
    if foreign:
        way_out = "Give the base model by its name, or choose a technique that leaves the structure as it is"
        raise ConfigError(describe("MetaLearner", "the technique changed the model's structure", foreign, way_out))
    for operation, arguments in taught.adapters.log:
        if operation in GROWTH:
            model.adapters.do(operation, **arguments)
    head = model.adapters.head
    heads = set() if head is None else {id(p) for p in head.parameters()}
    learned = taught.adapters.tensors()
    with torch.no_grad():
        for name, tensor in model.adapters.tensors().items():
            if id(tensor) not in heads:
                tensor.copy_(learned[name])

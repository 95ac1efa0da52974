"""Our strategies on the trainers of transformers and TRL: a subclass whose loop calls the hooks of the protocol.

compute_loss      loss + penalties, in training only, each scaled as the trainer scales its loss
clipping          edit_grads first, once an optimizer step
optimizer.step()  then after_step
evaluation        between before_eval and its undoing
train()           adapt_model, begin_task, train_data before it, end_task after it
save_model        what the strategies learned, beside the weights of every checkpoint
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import datasets
import torch
from accelerate.utils import DistributedType
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from everlearn.config import build_strategies
from everlearn.errors import ConfigError, StateError, describe, nearest
from everlearn.learners.lesson import Fetched, Lesson
from everlearn.models.adapters import Adapters
from everlearn.models.collated import (
    CollatedObjective,
    RolloutCollator,
    batch_of_preferences,
    batch_of_rollouts,
    batch_of_rows,
)
from everlearn.models.given import Given, check_given
from everlearn.models.load import Model, ModelConfig
from everlearn.models.special import padding_id
from everlearn.processes import Processes
from everlearn.seeds import seed_for, seeded
from everlearn.state import checkpoints, load_value, pack, save_checkpoint
from everlearn.strategy import Strategy
from everlearn.streams.apart import bytes_of
from everlearn.types import Mixture, Task
from everlearn.way import Run

STATE = "everlearn"  # folder beside a trainer's weights
KINDS = {"SFTTrainer": "rows", "DPOTrainer": "preferences", "GRPOTrainer": "rollouts"}  # of TRL
BATCH_OF = {"rows": batch_of_rows, "preferences": batch_of_preferences, "rollouts": batch_of_rollouts}
HOOKED = ("_clip_grad_norm", "_get_grad_norm", "get_batch_samples", "compute_loss", "evaluation_loop", "save_model")


@dataclass(frozen=True)
class _Traits:
    """Stands where a run has its learner."""

    traits: tuple[str, ...]


@dataclass
class Kept:
    """What goes from one trainer to the next: the run with its strategies, and what the weights were."""

    strategies: list[Strategy]
    seed: int
    saved: dict[str, Any] | None = None
    run: Run | None = None
    weights_sha256: str | None = None


def continual(
    trainer: type[Trainer],
    strategies: Sequence[Any],
    *,
    seed: int = 0,
    after: str | Path | None = None,
) -> type[Trainer]:
    """Return a subclass of a trainer class whose trainers learn one task after another with strategies of everlearn.

        SFT = continual(SFTTrainer, strategies=["ewc", {"name": "replay", "capacity": 200}])
        first = SFT(model, args=..., train_dataset=invoices, task="invoices")
        first.train()
        second = SFT(first.model, args=..., train_dataset=letters, task="letters")
        second.train()

    The class holds what its trainers have learned: each one's `train()` is one task more. A trainer takes `task`, a
    name, beside its own arguments (`task_1`, ... by default). `with second.as_task("invoices"):` lets the model answer
    as the method wants it for that task; evaluating does so for the trainer's own.

    Args:
        trainer: `transformers.Trainer`, or TRL's `SFTTrainer`, `DPOTrainer` or `GRPOTrainer`, or a subclass.
        strategies: names, mappings with a name and options, or strategy objects.
        seed: of what strategies draw.
        after: a folder that `save_model` of such a trainer wrote: go on after the tasks learned there.

    Raises:
        ConfigError: if the trainer isn't one of these, or strategies can't stand side by side. The trainer's own
            constructor raises it where a strategy doesn't suit the model or the kind of trainer.
        StateError: if `after` holds no state.
    """
    kind = _kind_of(trainer)
    missing = [name for name in HOOKED if name not in dir(trainer)]
    if missing:
        way_out = "Install transformers 5.23 or a later 5"
        raise ConfigError(describe(trainer.__name__, "lacks a method that the hooks stand in", missing, way_out))
    kept = Kept(build_strategies(strategies), seed, None if after is None else _read(Path(after)))
    return type(f"Continual{trainer.__name__}", (_Continual, trainer), {**kind, "kept": kept})


class _Continual:
    """What `continual` puts before a trainer class."""

    kind: ClassVar[str]  # rows, preferences or rollouts
    gives_logits: ClassVar[bool]
    kept: ClassVar[Kept]
    lesson: Lesson | None = None  # while a task is learned
    _as_asked = False  # whether strategies have made the model ready for a task

    def __init__(self, *args: Any, task: str | None = None, **options: Any):
        super().__init__(*args, **options)
        _check(self)
        self._meet()
        run = self.kept.run
        self.task = task or f"task_{run.position + 1}"
        run.tasks.setdefault(self.task, Task(self.task, "text", [], []))
        self.add_callback(_AfterStep(self))

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Learn the trainer's task: its own training, between the strategies' hooks before and after a task."""
        if trial is not None:
            way_out = "Search with the plain trainer, or with a new class from continual(...) for each trial"
            raise ConfigError(describe("train", "a trial would leave its traces in the next one", trial, way_out))
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                way_out = "Train from the start, or name the checkpoint"
                raise StateError(describe("train", "there is no checkpoint", self.args.output_dir, way_out))
        self._begin_task(_read(Path(resume_from_checkpoint)) if resume_from_checkpoint else None)
        output = super().train(resume_from_checkpoint or None, None, ignore_keys_for_eval)
        self._end_task()
        return output

    @contextmanager
    def as_task(self, task: str | None = None) -> Iterator[None]:
        """Let the model answer as strategies want it for a task (its mask, say), until the block ends.

        Raises:
            ConfigError: if the task is unknown.
        """
        run, name = self.kept.run, task or self.task
        if name not in run.tasks:
            way_out = f"{nearest(name, run.tasks)}Tasks: {', '.join(run.tasks)}"
            raise ConfigError(describe("as_task", "is no task of this trainer's class", name, way_out))
        was, self._as_asked = self._as_asked, True
        try:
            with run.ready_for(run.tasks[name]):
                yield
        finally:
            self._as_asked = was

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        lesson = self.lesson
        if lesson is None or not self.model.training or not lesson.reads_batches:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        batch = lesson.batch_of(inputs)  # before the trainer takes the labels out
        with_outputs = return_outputs or lesson.takes_outputs
        result = super().compute_loss(model, inputs, with_outputs, num_items_in_batch)
        loss, outputs = result if with_outputs else (result, None)
        if lesson.adds_to_loss:
            share, later = 1.0, 1.0 / self.current_gradient_accumulation_steps  # `training_step` divides the loss
            if num_items_in_batch is not None:
                share, later = lesson.n_items(batch) / num_items_in_batch, 1.0
            elif self.loss_is_scaled_for_ga:
                share, later = later, 1.0
            with self.accelerator.autocast():
                added = lesson.added_to_loss(batch, outputs if lesson.takes_outputs else None, share, later)
            loss = loss if added is None else loss + added
        lesson.keep_rollouts(batch)
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> Any:
        if self.lesson is None:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        self.lesson.begin_step(self.state.global_step, self.state.max_steps, self.optimizer.param_groups[0]["lr"])
        batches, n_items = super().get_batch_samples(self.lesson.with_old_rows(epoch_iterator), num_batches, device)
        self.lesson.weigh(batches)
        return batches, n_items

    def get_train_dataloader(self) -> Any:
        """Return the trainer's own; where old rows are mixed into each batch, of rows that aren't put together yet."""
        if self.lesson is None or not self.lesson.mixes:
            return super().get_train_dataloader()
        own = self.data_collator, self.train_dataset
        try:
            if self.kind == "rollouts":
                self.train_dataset = self.lesson.with_old_prompts()
            else:
                self.data_collator = Fetched
            return super().get_train_dataloader()
        finally:
            self.data_collator, self.train_dataset = own

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.lesson is not None:
            self.lesson.edit_grads()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if self.lesson is not None and grad_norm is None:  # it wasn't clipped
            self.lesson.edit_grads()
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def evaluation_loop(self, *args: Any, **options: Any) -> Any:
        if self._as_asked:
            return super().evaluation_loop(*args, **options)
        with self.as_task():
            return super().evaluation_loop(*args, **options)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.lesson is not None and "loss" in logs:
            logs |= self.lesson.told()
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, and beside it what the strategies learned, for `after` and for resuming."""
        super().save_model(output_dir, _internal_call)
        run, tensors = self.kept.run, {}
        values = {
            "run": {name: value for name, value in run.state().items() if name != "weights"},
            "tasks": list(run.tasks),
            "weights_sha256": self.kept.weights_sha256,
            "training": None if self.lesson is None else self.lesson.state(),
        }
        folder = Path(output_dir or self.args.output_dir) / STATE
        packed = pack(values, tensors, "continual")
        save_checkpoint(folder, tensors, packed)

    def _meet(self) -> None:
        """Give the run this trainer's model and accelerator.

        Raises:
            ConfigError: if a strategy doesn't suit them, or the model isn't what the last task left.
        """
        kept = self.kept
        check_given(Given(self.model, None, ModelConfig(name="module")), "causal")
        batch_of, collator = BATCH_OF[self.kind], self.data_collator
        if not isinstance(self.train_dataset, datasets.Dataset):
            collator = self._get_collator_with_removed_columns(collator)
        if self.kind == "rollouts":
            batch_of, collator = dict, RolloutCollator(padding_id(self.processing_class))
        known = kept.run is not None and kept.run.model.network is self.model
        adapters = kept.run.model.adapters if known else Adapters(self.model)
        if not known:
            adapters.do("full")  # all that the caller left trainable
        objective = CollatedObjective(collator, batch_of)
        model = Model(type(self.model).__name__, "causal", adapters, objective, self.processing_class)
        traits = _Traits(("trainer",) if self.kind == "rows" else ("trainer", self.kind))
        if kept.run is None:
            kept.run = Run(model, traits, kept.strategies, self.accelerator, seed=kept.seed)
            if kept.saved is not None:
                self._restore(kept.saved)
        else:
            for strategy in kept.strategies:
                strategy.check_model((*model.traits, *traits.traits))
            model.adapters.replay(kept.run.model.adapters.log)
            run = kept.run
            run.model, run.learner, run.accelerator = model, traits, self.accelerator
            run.processes = Processes(self.accelerator)
        if not known and kept.run.learned and kept.weights_sha256 != _sha256(kept.run):
            way_out = "Pass model=trainer.model of the last one, or the folder that its save_model wrote, unchanged"
            what = f"its trained weights are not those that task {kept.run.learned[-1]!r} left"
            raise ConfigError(describe("model", what, type(self.model).__name__, way_out))

    def _restore(self, saved: dict[str, Any]) -> None:
        run = self.kept.run
        present = dict(run.model.adapters.tensors())  # the trainer loads the weights itself
        run.load_state({**saved["run"], "weights": present})
        run.seed = saved["run"]["seed"]
        for name in saved["tasks"]:
            run.tasks.setdefault(name, Task(name, "text", [], []))
        self.kept.weights_sha256 = saved["weights_sha256"]

    def _begin_task(self, saved: dict[str, Any] | None) -> None:
        run = self.kept.run
        if run.model.network is not self.model:
            way_out = "Train the trainer that was made last; pass a model, not model_init"
            raise ConfigError(describe("model", "is not the one that the trainer was made with", self.task, way_out))
        if saved is not None:
            self._go_on_from(saved)
        rows = self.train_dataset
        if isinstance(rows, datasets.Dataset):
            rows = self._remove_unused_columns(rows)
        task = Task(self.task, "text", rows if isinstance(rows, datasets.Dataset) else list(rows), [])
        run.tasks[self.task], run.current = task, self.task
        with seeded(seed_for(run.seed, run.position, task.name, run.processes.rank)):
            if saved is None:
                for strategy in run.strategies:
                    strategy.adapt_model(run, task)
                for strategy in run.strategies:
                    strategy.begin_task(run, task)
            mixture = Mixture.of(task)
            for strategy in run.strategies:
                mixture = strategy.train_data(mixture, run)
        own = [part.rows for group in mixture.groups[:1] for part in group.parts]
        if {name for name, _ in run.model.adapters.log} - {"full", "freeze"} or own != [task.train]:
            names, way_out = [strategy.name for strategy in run.strategies], "Use everlearn's own ContinualTrainer"
            what = "they need another model, or other rows, than the trainer has"
            raise ConfigError(describe("strategies", what, names, way_out))
        self.lesson = Lesson.of(run, task, mixture, self.kind, self.gives_logits, BATCH_OF[self.kind])
        if saved is not None:
            self.lesson.load_state(saved["training"])

    def _go_on_from(self, saved: dict[str, Any]) -> None:
        training = saved["training"]
        if training is None or training["task"] != self.task:
            way_out = "Resume with the task, and the order of tasks, that the checkpoint is of"
            got = None if training is None else training["task"]
            raise ConfigError(describe("train", f"the checkpoint is not of task {self.task!r}", got, way_out))
        self._restore(saved)

    def _end_task(self) -> None:
        run, lesson = self.kept.run, self.lesson
        with seeded(seed_for(run.seed, run.position, self.task, "end", run.processes.rank)):
            for strategy in reversed(run.strategies):
                strategy.end_task(run, lesson.task_for(strategy))
        run.tasks[self.task] = replace(lesson.task, train=[])
        run.learned.append(self.task)
        run.took_part |= {strategy.name: len(run.learned) for strategy in run.strategies}
        run.position += 1
        run.current, self.lesson = None, None
        self.kept.weights_sha256 = _sha256(run)


@dataclass
class _AfterStep(TrainerCallback):
    """Calls `after_step` between the optimizer's step and the next one."""

    trainer: _Continual

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if self.trainer.lesson is not None:
            self.trainer.lesson.after_step()


def _kind_of(trainer: type[Trainer]) -> dict[str, Any]:
    """Return what kind of trainer a class is, and whether its own loss comes with logits.

    Raises:
        ConfigError: if it is none that can be continual.
    """
    of_trl = [cls.__name__ for cls in trainer.__mro__ if cls.__module__.partition(".")[0] == "trl"]
    known = [name for name in of_trl if name in KINDS]
    if not issubclass(trainer, Trainer) or (of_trl and not known) or issubclass(trainer, _Continual):
        way_out = f"Give transformers.Trainer, or TRL's {', '.join(KINDS)}, or a subclass"
        raise ConfigError(describe("continual", "can't carry strategies", trainer.__name__, way_out))
    return {"kind": KINDS[known[0]] if known else "rows", "gives_logits": not known}


def _check(trainer: Any) -> None:
    """Raise ConfigError where the trainer's settings would leave a hook without what it needs."""
    args, rows = trainer.args, trainer.train_dataset
    options = vars(args)
    n_processes = max(args.world_size, args.n_gpu)
    plain = trainer.accelerator.distributed_type == DistributedType.NO
    refused = [
        (rows is None, "train_dataset", "is missing", rows, "Pass the task's rows"),
        (
            isinstance(rows, torch.utils.data.IterableDataset | datasets.IterableDataset), "train_dataset",
            "is a stream, whose rows can't be kept or measured on", type(rows).__name__, "Pass a datasets.Dataset",
        ),
        (n_processes > 1 or not plain, "processes", "one process and one device only", n_processes,
         "Start it without torchrun, with one visible GPU; or use everlearn run on several"),
        (args.fp16, "fp16", "gradients would be edited while they are still scaled", True, "Write bf16=True"),
        (args.load_best_model_at_end, "load_best_model_at_end", "strategies follow the last step's weights", True,
         "Leave it out; choose num_train_epochs"),
        (args.auto_find_batch_size, "auto_find_batch_size", "would begin a task twice", True, "Choose a batch size"),
        *(
            (bool(options.get(name)), name, "rows that share a sequence can't be told apart", True, f"{name}=False")
            for name in ("packing", "padding_free")
        ),
    ]  # fmt: skip
    for wrong, where, what, got, way_out in refused:
        if wrong:
            raise ConfigError(describe(where, what, got, way_out))


def _read(folder: Path) -> dict[str, Any]:
    """Return what `save_model` wrote beside the weights in a folder.

    Raises:
        StateError: if there is nothing, or it is damaged.
    """
    found = checkpoints(folder / STATE)
    if not found:
        way_out = "Name a folder that a trainer of continual(...) saved"
        raise StateError(describe(str(folder), "holds nothing that strategies learned", STATE, way_out))
    return load_value(found[-1])


def _sha256(run: Run) -> str:
    """Return the SHA-256 of all weights that were ever trained. Cost: a copy to the CPU, and a pass over the bytes."""
    content = hashlib.sha256()
    for name, tensor in run.model.adapters.tensors().items():
        if not name.startswith("buffer:"):
            content.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            content.update(bytes_of(tensor))
    return content.hexdigest()

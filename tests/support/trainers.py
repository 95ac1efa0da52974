"""Trainers of transformers on the tiny tasks, with the rows, batches and options of our own learner."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from everlearn.models.causal import CausalObjective
from everlearn.seeds import generator_for
from everlearn.types import Task
from support.models import byte_tokenizer


def rows_for(task: Task) -> Dataset:
    """Return a task's training rows as tokens, as our own learner has them."""
    features = CausalObjective(byte_tokenizer(), 64).encode(task.train, task)
    return Dataset.from_list(
        [{"input_ids": list(row["input_ids"]), "labels": list(row["labels"])} for row in features]
    )  # fmt: skip


class InOurOrder(Trainer):
    """Takes the rows of the first epoch in the order of our own learner's."""

    def _get_train_sampler(self, train_dataset: Any = None) -> list[int]:
        position, task = self.kept.run.position, self.task
        generator = generator_for(0, position, task, 0, "order")
        return torch.randperm(len(self.train_dataset), generator=generator).tolist()


def make_model(llama: Path) -> Any:
    """Return the tiny language model."""
    return AutoModelForCausalLM.from_pretrained(llama)


def options_for(folder: Path, **options: Any) -> TrainingArguments:
    """Return the options of a trainer that takes four rows a step on the CPU and writes nothing of itself."""
    chosen = {
        "num_train_epochs": 1, "per_device_train_batch_size": 4, "learning_rate": 0.01, "save_strategy": "no",
        "lr_scheduler_type": "constant", "report_to": [], "disable_tqdm": True, "logging_steps": 1, "use_cpu": True,
        "dataloader_pin_memory": False, **options,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder), **chosen)


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the sweep for garbage that a trainer begins with: nine tenths of its time on a tiny model."""
    monkeypatch.setattr("accelerate.utils.memory.gc.collect", lambda: 0)


def make_trainer(
    cls: type, model: Any, task: Task, folder: Path, optimizers: Any = (None, None), **options: Any
) -> Any:
    """Return a trainer of a task; of a class that `continual` made it bears the task's name."""
    tokenizer = byte_tokenizer()
    named = {"task": task.name} if "kept" in dir(cls) else {}
    return cls(
        model=model, args=options_for(folder, **options), train_dataset=rows_for(task), processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True), optimizers=optimizers, **named,
    )  # fmt: skip


def losses_of(trainer: Trainer, name: str = "loss") -> list[float]:
    """Return what a trainer logged under a name, a number for each step."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def copies(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of a model's parameters."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}

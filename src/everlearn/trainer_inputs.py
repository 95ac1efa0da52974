"""What a trainer is given, made into what the engine takes: a model, data loaders, who is told how it goes on."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, StreamError, describe
from everlearn.listener import Listener
from everlearn.models.given import Given, check_options
from everlearn.models.load import ModelConfig
from everlearn.report.progress import ProgressBars
from everlearn.streams.loaders import read_loader
from everlearn.streams.loading import TaskOptions, build_task
from everlearn.streams.sampled import none_of
from everlearn.streams.text_loaders import texts_of
from everlearn.types import Rows, Task


def model_source(
    model: str | Path | nn.Module | ModelConfig | Mapping[str, Any],
    tokenizer: Any,
    options: Mapping[str, Any] | None,
) -> ModelConfig | Given:
    """Return what the model is loaded from, or the one that is.

    Raises:
        ConfigError: if `tokenizer` or `options` come with a model that isn't loaded yet, or an option is wrong.
    """
    if isinstance(model, nn.Module):
        source = model.config.name_or_path if isinstance(model, PreTrainedModel | PeftModel) else ""
        check_options(options or {})
        named = {"name": source or type(model).__name__, **(options or {})}
        return Given(model, tokenizer, from_mapping(ModelConfig, named, "model_options"))
    for name, value in (("tokenizer", tokenizer), ("model_options", options)):
        if value is not None:
            way_out = "Leave it out: the model's own is loaded" if name == "tokenizer" else "Put them into model={...}"
            raise ConfigError(describe(name, "is for a model that is loaded", type(value).__name__, way_out))
    if isinstance(model, ModelConfig):
        return model
    if isinstance(model, str | Path):
        return ModelConfig(str(model))
    return from_mapping(ModelConfig, model, "model")


def task_behind(
    name: str, train_loader: DataLoader, val_loader: DataLoader | None, n_epochs: int, *purpose: object
) -> tuple[Task, int | None]:
    """Return the task behind data loaders, and their batch size where they have one; see `read_loader`."""
    train, loader = read_loader("train_loader", train_loader, n_epochs, *purpose, name)
    evaluation: Rows = none_of(train)
    if val_loader is not None:
        evaluation, _ = read_loader("val_loader", val_loader, 1, *purpose, name, hold=True)
    batch_size = train_loader.batch_size if isinstance(train_loader, DataLoader) else None
    return Task(name, "tensor", train, evaluation, loader=loader), batch_size


def read_task(
    name: str,
    options: TaskOptions,
    n_epochs: int,
    purpose: tuple[object, ...],
    *,
    train: str | Path | Rows | Task | None = None,
    evaluate: str | Path | Rows | None = None,
    validation: str | Path | Rows | None = None,
    train_loader: DataLoader | None = None,
    val_loader: DataLoader | None = None,
) -> tuple[Task, int | None]:
    """Return the task behind rows, files or data loaders, and the loader's batch size where it has one.

    Args:
        train: a task that is made already is taken as it is, under another name.
        n_epochs: of which a loader's batches are drawn. purpose: what its sampler is seeded by.

    Raises:
        StreamError: if there are no data, or of both sorts; or they are bad.
    """
    batch_size = None
    if (found := texts_of("train_loader", train_loader, *purpose, name)) is not None:
        train, batch_size, train_loader = found, train_loader.batch_size, None
    if (found := texts_of("val_loader", val_loader, *purpose, name)) is not None:
        evaluate, val_loader = found, None
    rows = {"train": train, "evaluate": evaluate, "validation": validation}
    beside = [role for role, value in rows.items() if value is not None]
    if beside and (train_loader is not None or val_loader is not None):
        what, way_out = "is given both data loaders and rows", "Give loaders of tensors, or rows of text"
        raise StreamError(describe(f"train_task {name!r}", what, beside, way_out))
    if isinstance(train, Task):
        if len(beside) > 1 or options.labels or options.columns:
            way_out = "Give it alone"
            raise StreamError(describe(f"train_task {name!r}", "a task brings all its rows", beside, way_out))
        return replace(train, name=name), None
    if train_loader is not None:
        task, batch_size = task_behind(name, train_loader, val_loader, n_epochs, *purpose)
        return replace(task, allow_overlap=options.allow_overlap), batch_size
    if train is None:
        way_out = "Pass train=FILE or rows, or train_loader=a DataLoader"
        raise StreamError(describe(f"train_task {name!r}", "has nothing to train on", train, way_out))
    return build_task(name, train, evaluate, validation, options), batch_size


def listener_for(progress: bool | None) -> Listener:
    """Return what draws bars, or the plain listener, whose notes are warnings; None: bars in a terminal."""
    shown = sys.stdout.isatty() if progress is None else progress
    return ProgressBars(Console()) if shown else Listener()

"""A trainer in a folder: whole states, the newest two, and the rows that they refer to, in files named by their hash.

FOLDER/trainer-states/000003/   tensors.safetensors, values.json: see `everlearn.state`
FOLDER/trainer-rows/            evaluation items, and what strategies keep on disk: shared between the states
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from everlearn.config import build, from_mapping
from everlearn.errors import ConfigError, ModelError, StateError, describe
from everlearn.home.base import settle
from everlearn.memory.disk import open_rows, write_rows
from everlearn.models.given import Given
from everlearn.models.load import Model, ModelConfig
from everlearn.models.origin import differing_files, origin_of
from everlearn.models.plain import is_plain
from everlearn.models.targets import Fit, FittedCollate
from everlearn.registry import find, names
from everlearn.state import (
    checkpoints,
    clear_leftovers,
    clear_unnamed,
    load_state,
    make_folder,
    named_file,
    named_files,
    pack,
    save_checkpoint,
    save_named,
    unpack,
)
from everlearn.strategy import Strategy
from everlearn.streams.apart import bytes_of
from everlearn.types import Loader, Rows, Task, TensorRows

FORMAT = 1
STATES, ROWS = "trainer-states", "trainer-rows"
Collate = Callable[[list[Any]], tuple[torch.Tensor, torch.Tensor]]


def write_trainer(folder: Path, values: Mapping[str, Any], memory: Path | None) -> None:
    """Write a trainer's state into a folder, which holds the new one whole or, after a crash, the one before.

    Args:
        values: tensors, JSON, and what stands for rows in `folder`. memory: where the files that strategies keep are.

    Raises:
        StateError: if the disk is full or the folder can't be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    packed = pack({"format": FORMAT, **values}, tensors, "trainer")
    for name in sorted(named_files(packed)):
        if not (folder / ROWS / name).exists():
            source = named_file(memory, name)
            save_named(folder / ROWS, source.suffix, lambda path, source=source: shutil.copyfile(source, path))
    save_checkpoint(folder / STATES, tensors, packed)
    for part in (STATES, ROWS):
        clear_leftovers(folder / part)
    clear_unnamed(folder / ROWS, checkpoints(folder / STATES))


def read_trainer(folder: Path) -> dict[str, Any]:
    """Return the newest state that `write_trainer` wrote.

    Raises:
        StateError: if there is none, or it is damaged; the one before it is still there.
    """
    found = checkpoints(folder / STATES)
    if not found:
        way_out = "Name the folder that trainer.save was given"
        raise StateError(describe("ContinualTrainer.load", "no trainer was saved there", str(folder), way_out))
    tensors, values = load_state(found[-1])
    if values.get("format") != FORMAT:
        way_out = "Load it with the everlearn that saved it"
        raise StateError(describe(str(found[-1]), "is of another format", values.get("format"), way_out))
    return unpack(values, tensors)


def card_of(task: Task, folder: Path, *, with_training: bool) -> dict[str, Any]:
    """Return a task as JSON, its evaluation items written below `folder`; with its training rows, where asked."""
    make_folder(folder)
    samples = task.loader is not None and not all(
        isinstance(rows, TensorRows) for rows in (task.train, task.evaluation)
    )
    fit = task.loader.collate.fit if samples else None
    return {
        "name": task.name,
        "kind": task.kind,
        "labels": list(task.labels),
        "metrics": list(task.metrics),
        "verifier": task.verifier,
        "max_new_tokens": task.max_new_tokens,
        "threshold": task.threshold,
        "beta": task.beta,
        "notes": list(task.notes),
        "allow_overlap": task.allow_overlap,
        "evaluation": _stored(task.evaluation, folder / ROWS),
        "train": _stored(task.train, folder / ROWS) if with_training else None,
        "fit": {"targets": fit.targets, "dtype": _name_of(fit.dtype)} if fit is not None else None,
    }


def task_of(card: Mapping[str, Any], folder: Path, collate: Collate | None) -> Task:
    """Return the task that `card_of` made a card of.

    Args:
        collate: puts samples into a batch, where the task's rows need it.

    Raises:
        ConfigError: if it is missing. StateError: if rows are damaged.
    """
    of_tensors = card["kind"] == "tensor" and card["fit"] is None
    nothing: Rows = TensorRows(torch.zeros(0), torch.zeros(0)) if of_tensors else []
    rows = {role: _opened(card[role], folder / ROWS, nothing) for role in ("evaluation", "train")}
    loader = None
    if card["fit"] is not None:
        if collate is None:
            way_out = "Pass load(..., collate_fn=the one of its data loader)"
            where = f"task {card['name']!r}"
            raise ConfigError(describe(where, "only a function of yours can make batches of its rows", None, way_out))
        dtype = card["fit"]["dtype"]
        fit = Fit(card["fit"]["targets"], None if dtype is None else vars(torch)[dtype])
        loader = Loader([], FittedCollate(collate, fit), [])
    plain = ("name", "kind", "verifier", "max_new_tokens", "allow_overlap")
    lists = {name: tuple(card[name]) for name in ("labels", "metrics", "notes")}
    later = {name: card[name] for name in ("threshold", "beta") if name in card}  # those saved before have none
    return Task(**{name: card[name] for name in plain}, **lists, **rows, loader=loader, **later)


def card_of_strategy(strategy: Strategy) -> dict[str, Any]:
    """Return a strategy's name and hyperparameters; one that isn't registered is named package.module:Class."""
    cls = type(strategy)
    registered = strategy.name in names("strategy") and find("strategy", strategy.name) is cls
    name = strategy.name if registered else f"{cls.__module__}:{cls.__qualname__}"
    return {"name": name, **{f.name: vars(strategy)[f.name] for f in fields(strategy) if f.init}}


def strategy_of(card: Mapping[str, Any], number: int) -> Strategy:
    """Return a new strategy by the card of `card_of_strategy`."""
    return build("strategy", card, f"strategies[{number}]")


def card_of_model(config: ModelConfig | Given, model: Model) -> dict[str, Any]:
    """Return how a model is loaded again, and how it is told that it is the same one.

    Cost: reads a local model's files, or the frozen weights of one that was handed over, once.
    """
    if isinstance(config, Given):
        of_given = {"class": type(config.network).__name__, "frozen_sha256": frozen_sha256(model)}
        return {"config": asdict(config.config), "given": of_given, "fingerprint": {}}
    settled, fingerprint = (config, {}) if is_plain(config.name) else settle(config)
    return {"config": asdict(settled), "given": None, "fingerprint": fingerprint}


def config_of(card: Mapping[str, Any], model: nn.Module | str | None, tokenizer: Any) -> ModelConfig | Given:
    """Return what to load the model from.

    Args:
        model: the module, where one was handed over; else another place of the same model, or None for the old one.

    Raises:
        ConfigError: if a module is missing, or there is none to hand over. ModelError: if the files are others now.
    """
    config = from_mapping(ModelConfig, card["config"], "model")
    given = card["given"]
    if given is not None:
        if not isinstance(model, nn.Module):
            way_out = f"Pass load(..., model=a {given['class']} like that one)"
            what = "the model was handed over as an object, which isn't saved"
            raise ConfigError(describe("ContinualTrainer.load", what, model, way_out))
        return Given(model, tokenizer, config)
    if isinstance(model, nn.Module):
        way_out = "Leave model out, or name the place where it is now"
        raise ConfigError(describe("ContinualTrainer.load", "the model is loaded by its name", config.name, way_out))
    config = config if model is None else replace(config, name=model)
    differing = differing_files(card["fingerprint"], origin_of(config))
    if differing:
        way_out = "Put the old files back, or name their place: load(..., model=PLACE)"
        what = "is not the one that the trainer was saved with"
        raise ModelError(describe(f"model {config.name!r}", what, differing[:4], way_out))
    return config


def check_same_frozen(card: Mapping[str, Any], model: Model) -> None:
    """Do nothing if what is never trained of a model that was handed over is what it was.

    Raises:
        ModelError: if it differs.
    """
    given = card["given"]
    if given is not None and frozen_sha256(model) != given["frozen_sha256"]:
        way_out = "Pass one with the weights that the first was handed over with"
        what = "its frozen weights are not those that the trainer was saved with"
        raise ModelError(describe("model", what, type(model.network).__name__, way_out))


def frozen_sha256(model: Model) -> str:
    """Return the SHA-256 of the parameters that never were trained."""
    content, trained = hashlib.sha256(), model.adapters.tensors()
    for name, parameter in model.network.named_parameters():
        if name not in trained:
            content.update(f"{name} {parameter.dtype} {list(parameter.shape)}".encode())
            content.update(bytes_of(parameter))
    return content.hexdigest()


def sizes_of(rows: Rows) -> TensorRows | None:
    """Return one row, without content, that sizes a module built by its name as a task's rows do."""
    if not isinstance(rows, TensorRows):
        return None
    y = rows.y[:1] if rows.y.is_floating_point() else rows.y.max().reshape(1)
    return TensorRows(torch.zeros_like(rows[:1].x), torch.zeros_like(y) if y.is_floating_point() else y)


def _stored(rows: Rows, folder: Path) -> dict[str, Any] | None:
    return write_rows(rows, len(rows), folder) if len(rows) else None


def _opened(stored: Mapping[str, Any] | None, folder: Path, nothing: Rows) -> Rows:
    if stored is None:
        return nothing
    rows = open_rows(dict(stored), folder)
    return rows if isinstance(rows, TensorRows) else list(rows)


def _name_of(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")

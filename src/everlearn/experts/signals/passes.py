"""Rows on their way through the frozen base: a loss for each of them, and how sure the base is of what comes next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError, describe
from everlearn.models.adapters import language_model
from everlearn.models.labelled import TextObjective
from everlearn.models.load import Model
from everlearn.models.objectives import Batch, padded, to_device
from everlearn.models.special import padding_id
from everlearn.seeds import generator_for
from everlearn.types import IGNORED, Row, Rows, Task

BATCH_TOKENS = 512  # in a pass, padding included: the logits of a large vocabulary are what fills the memory


@dataclass(frozen=True)
class Pass:
    """What the base makes of some rows.

    Attributes:
        losses: of each row, the mean over its targets, nats [n_rows]; with a graph where gradients are on.
        entropies: of each prediction, nats [n_predictions].
        tokens: of each row. n_targets: of each row [n_rows].
    """

    losses: torch.Tensor
    entropies: torch.Tensor
    tokens: list[list[int]]
    n_targets: torch.Tensor


def passes(model: Model, task: Task, rows: Rows, max_tokens: int) -> Iterator[Pass]:
    """Yield rows' ways through the base, some rows at a time; the caller has put what is added to it aside.

    A language model predicts the next token: targets are as in training, entropies those at all places. An encoder has
    no head for the task yet, so it gets one that needs no training: the means of the rows' classes. It predicts class c
    for the state h with the logit -|h - mean_c|² / s, s the mean of |h - mean of its own class|². A text's state is the
    mean of its tokens' last hidden states, a word's that of its first token.

    Args:
        max_tokens: of a row; of longer ones a language model keeps the end, where the answer is, an encoder the start.

    Source: Snell, Swersky & Zemel 2017, Prototypical networks for few-shot learning, for the head of class means.
    """
    if model.kind == "causal":
        return _predicting_tokens(model, task, rows, max_tokens)
    return _predicting_classes(model, task, rows, max_tokens)


def chosen(task: Task, rows: Rows, k: int, seed: int) -> list[Row]:
    """Return k of the rows, or all where they are fewer; of a classification as many of each class as there can be."""
    order = torch.randperm(len(rows), generator=generator_for("examples", seed)).tolist()
    if task.kind == "classify":
        seen: dict[int, int] = {}
        turns = []
        for index in order:
            label = rows[index]["label"]
            turns.append((seen.get(label, 0), index))
            seen[label] = seen.get(label, 0) + 1
        order = [index for _, index in sorted(turns, key=lambda turn: turn[0])]
    return [rows[index] for index in order[:k]]


def hidden_states(model: Model, batch: Batch) -> torch.Tensor:
    """Return the base's last hidden states, float32 [batch, positions, width]."""
    options = {"use_cache": False} if model.kind == "causal" else {}
    return language_model(model.network).base_model(**batch, **options).last_hidden_state.float()


def mean_states(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean over positions that count, [batch, width]. states [batch, positions, width], mask without width.

    Each row needs such a position."""  # fmt: skip
    mask = mask.to(states)[..., None]
    return (states * mask).sum(1) / mask.sum(1)


def _predicting_tokens(model: Model, task: Task, rows: Rows, max_tokens: int) -> Iterator[Pass]:
    features = model.objective.encode(rows, task)
    picked = model.objective.take(features, list(range(min(len(rows), len(features)))))
    picked = [{name: list(one[name])[-max_tokens:] for name in ("input_ids", "labels")} for one in picked]
    for part in _parts(picked):
        batch = to_device(model.objective.collate(part), _device(model))
        labels = batch.pop("labels")[:, 1:]
        logits = model.network(**batch, use_cache=False).logits[:, :-1]
        there = batch["attention_mask"][:, 1:].bool() if "attention_mask" in batch else torch.ones_like(labels).bool()
        owners, places = (labels != IGNORED).nonzero(as_tuple=True)
        losses = F.cross_entropy(logits[owners, places].float(), labels[owners, places], reduction="none")
        tokens = [one["input_ids"] for one in part]
        yield _passed(losses, owners, logits.detach()[there], tokens)


def _predicting_classes(model: Model, task: Task, rows: Rows, max_tokens: int) -> Iterator[Pass]:
    parts = _parts(_labelled(model, task, rows, max_tokens))
    with torch.no_grad():
        found = [_class_states(model, part) for part in parts]
    states, classes = torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found])
    if not len(classes):
        way_out = "Give rows with labels"
        raise ConfigError(describe(f"signals: task {task.name!r}", "no row has a target", len(rows), way_out))
    present = classes.unique()
    means = torch.stack([states[classes == one].mean(0) for one in present])
    places = torch.searchsorted(present, classes)
    within = (states - means[places]).square().sum(1).mean()
    scale = within if within > 0 else (states - states.mean(0)).square().sum(1).mean().clamp(min=1e-6)
    for part in parts:
        states, classes, owners = _class_states(model, part)
        logits = -(states[:, None] - means).square().sum(2) / scale
        losses = F.cross_entropy(logits, torch.searchsorted(present, classes), reduction="none")
        yield _passed(losses, owners, logits.detach(), [one["input_ids"] for one in part])


def _classes_of(task: Task, rows: Rows) -> list[int]:
    """Return the class of each text: its label, or its set of them; of a number the quarter that it lies in."""
    if task.kind == "classify":
        return [row["label"] for row in rows]
    if task.kind == "multilabel":
        sets = [tuple(sorted(row["labels"])) for row in rows]
        numbered = {one: number for number, one in enumerate(sorted(set(sets)))}
        return [numbered[one] for one in sets]
    numbers = np.array([row["score"] for row in rows])
    return np.searchsorted(np.quantile(numbers, (0.25, 0.5, 0.75)), numbers).tolist()


def _labelled(model: Model, task: Task, rows: Rows, max_tokens: int) -> list[dict[str, Any]]:
    """Return each row's inputs, and the classes of its targets: of the whole text, or at some of its tokens."""
    options = {"truncation": True, "max_length": min(max_tokens, model.objective.max_length), "verbose": False}
    if isinstance(model.objective, TextObjective):
        pairs = [row.get("text_pair") or "" for row in rows]
        encoded = model.tokenizer([row["text"] for row in rows], pairs if any(pairs) else None, **options)
        targets = [[(None, answer)] for answer in _classes_of(task, rows)]
    else:
        encoded = model.tokenizer([list(row["tokens"]) for row in rows], is_split_into_words=True, **options)
        targets = []
        for number, row in enumerate(rows):
            words = encoded.word_ids(number)
            firsts = {word: place for place, word in reversed(list(enumerate(words))) if word is not None}
            targets.append([(place, row["tags"][word]) for word, place in sorted(firsts.items())])
    return [
        {**{name: encoded[name][i] for name in encoded}, "targets": [t for t in targets[i] if t[1] >= 0]}
        for i in range(len(rows))
    ]


def _class_states(model: Model, part: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the states of the targets [n_targets, width], their classes and their rows [n_targets]."""
    padding = {"input_ids": padding_id(model.tokenizer)}
    names = [name for name in model.tokenizer.model_input_names if name in part[0]]
    batch = {name: padded([one[name] for one in part], padding.get(name, 0)) for name in names}
    batch = to_device(batch, _device(model))
    states = hidden_states(model, batch)
    where = [(row, place, label) for row, one in enumerate(part) for place, label in one["targets"]]
    owners = torch.tensor([row for row, _, _ in where], device=states.device, dtype=torch.long)
    classes = torch.tensor([label for _, _, label in where], device=states.device, dtype=torch.long)
    if any(place is None for _, place, _ in where):
        return mean_states(states, batch["attention_mask"])[owners], classes, owners
    places = torch.tensor([place for _, place, _ in where], device=states.device, dtype=torch.long)
    return states[owners, places], classes, owners


def _passed(losses: torch.Tensor, owners: torch.Tensor, logits: torch.Tensor, tokens: list[list[int]]) -> Pass:
    """Return a pass from its targets' losses and rows [n_targets], and the logits of all it predicts."""
    n_targets = torch.bincount(owners, minlength=len(tokens))
    sums = losses.new_zeros(len(tokens)).index_add(0, owners, losses)
    log_p = logits.float().log_softmax(-1)
    entropies = -(log_p.exp() * log_p).sum(-1)
    return Pass(sums / n_targets.clamp(min=1), entropies.cpu(), tokens, n_targets.cpu())


def _parts(features: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return rows in parts of like length."""
    ordered = sorted(features, key=lambda feature: len(feature["input_ids"]), reverse=True)
    parts = []
    while ordered:
        n = max(1, BATCH_TOKENS // len(ordered[0]["input_ids"]))
        parts.append(ordered[:n])
        ordered = ordered[n:]
    return parts


def _device(model: Model) -> torch.device:
    return next(model.network.parameters()).device

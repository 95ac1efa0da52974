"""A task's rows as hidden states: encoded, cut to what a generator can take, run through the blocks below a layer."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from everlearn.memory.latent.layers import Latents, hidden_states, joined
from everlearn.models.load import Model
from everlearn.models.objectives import Batch, to_device
from everlearn.models.without import adapter_off
from everlearn.streams.sampling import select_rows
from everlearn.types import IGNORED, Task

if TYPE_CHECKING:
    from everlearn.way import Run

Answer = Hashable
ONCE = ("row", "task")  # in encoded rows: what a row has one of


def encoded(model: Model, task: Task, rows: Sequence[int], max_tokens: int) -> list[dict[str, Any]]:
    """Return the encoded rows that have a target within `max_tokens`: of a longer one a language model keeps the end,
    where the answer is, a classifier the start."""  # fmt: skip
    features = model.objective.encode(select_rows(task.train, list(rows)), task)
    picked = model.objective.take(features, list(range(len(features))))
    kept = slice(-max_tokens, None) if model.kind == "causal" else slice(max_tokens)
    cut = [{name: value if name in ONCE else value[kept] for name, value in one.items()} for one in picked]
    first = 1 if model.kind == "causal" else 0  # a first token is predicted from nothing
    return [one for one in cut if any(label != IGNORED for label in one["labels"][first:])]


def read_latents(
    run: "Run", features: Sequence[dict[str, Any]], layer: int, batch_size: int
) -> tuple[Latents, list[Answer]]:
    """Return what goes into block `layer` on encoded rows, the adapter off, and the right answer of each row.

    Cost: a pass through the blocks below; 4 * width bytes for each position, the longest row's for all.
    """
    parts = []
    with torch.no_grad(), run.model.evaluating(), adapter_off(run.model):
        for low in range(0, len(features), batch_size):
            batch = batch_of(run, features[low : low + batch_size])
            parts.append(latents_of(run.model, batch, hidden_states(run.model, batch, layer)))
    return joined(parts), [_answer(run.model.kind, one["labels"]) for one in features]


def batch_of(run: "Run", features: Sequence[dict[str, Any]]) -> Batch:
    """Return encoded rows as a batch on the run's device."""
    return to_device(run.model.objective.collate(list(features)), run.accelerator.device)


def latents_of(model: Model, batch: Batch, states: torch.Tensor) -> Latents:
    """Return the hidden states [n, positions, width] of a batch with its lengths and where its targets are read."""
    labels, n_positions = batch["labels"], states.shape[1]
    targets = F.pad(labels != IGNORED, (0, n_positions - labels.shape[1]))  # that of a text is read at its start
    if model.kind == "causal":
        targets[:, 0] = False
    full = torch.full((len(labels),), n_positions, device=labels.device)
    lengths = batch["attention_mask"].sum(1) if "attention_mask" in batch else full
    heads = batch["tasks"] if "tasks" in batch else torch.zeros_like(full)
    return Latents(states, lengths, targets, heads)


def _answer(kind: str, labels: Sequence[int]) -> Answer:
    answer = [label for label in labels if label != IGNORED]
    return tuple(sorted(set(answer)) if kind == "tag" else answer)

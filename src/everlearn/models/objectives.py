"""From rows to a loss: encode rows, collate a batch, predict at the positions with a target; and plain modules.

Language models that write: `everlearn.models.causal`. Heads on texts: `everlearn.models.labelled`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import StreamError, describe
from everlearn.models.adapters import Adapters
from everlearn.types import IGNORED, Outputs, Rows, Task, TensorRows

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TensorFeatures(Sequence):
    """Encoded `TensorRows`: their inputs, y [n] as output columns, and the columns that may be answered [n_columns]."""

    rows: TensorRows
    y: torch.Tensor
    allowed: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        picked = self.rows[index]
        return {"x": picked.x if isinstance(index, slice) else picked["x"], "y": self.y[index]}


@dataclass(frozen=True)
class Samples:
    """Samples of a user's dataset, and the function that makes a batch of them."""

    samples: list[Any]
    make_batch: Callable[[list[Any]], tuple[torch.Tensor, torch.Tensor]]

    def batch(self) -> Batch:
        """Return the batch, {"x": ..., "y": ...}."""
        return dict(zip("xy", self.make_batch(self.samples), strict=True))


Features = Sequence[Any]


class Objective(Protocol):
    """How one kind of network learns from rows.

    Attributes:
        traits: what a method may be unsuited for, beside the kind of network; see `Model.traits`.
    """

    traits: ClassVar[tuple[str, ...]]

    def encode(self, rows: Rows, task: Task, told: Callable[[int], None] | None = None) -> Features:
        """Turn rows into features: token ids and labels, or tensors.

        told: where it takes long, is called now and then with the number of rows done since.
        """
        ...

    def encode_answers(self, rows: Rows, task: Task) -> Features:
        """Turn rows into features to score: their targets are the answers that count, whatever is trained on."""
        ...

    def take(self, features: Features, indices: list[int]) -> list[dict[str, Any]]:
        """Pick features for a batch."""
        ...

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        """Stack what `take` picked, of one or more tasks, into CPU tensors [batch, ...]."""
        ...

    def forward(self, network: nn.Module, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        """Predict the batch's targets; `past` names earlier tasks whose answers to these inputs are wanted as well."""
        ...

    def n_items(self, batch: Batch) -> int:
        """Return how many targets the batch holds."""
        ...

    def items_of_rows(self, batch: Batch) -> torch.Tensor:
        """Return how many targets each row of the batch has [batch], int64."""
        ...


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch; on the CPU this is free."""
    if device.type == "cpu":
        return batch
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def item_losses(outputs: Outputs) -> torch.Tensor:
    """Return the negative log-likelihood of each target [n_items], nats (for regression: half the squared error).

    Of several labels it is that of them all: the sum of their binary cross-entropies.
    """
    if outputs.binary:
        losses = F.binary_cross_entropy_with_logits(outputs.logits.float(), outputs.targets.float(), reduction="none")
        return losses.sum(1)
    if outputs.targets.is_floating_point():
        # reshape, not broadcasting: [n, 1] - [n] would compare every prediction with every target
        errors = outputs.logits.float() - outputs.targets.float().reshape(outputs.logits.shape)
        return 0.5 * errors.square().reshape(len(errors), -1).sum(1)
    return F.cross_entropy(outputs.logits.float(), outputs.targets, reduction="none")


def losses_at(outputs: Outputs, chosen: torch.Tensor) -> torch.Tensor:
    """Return the losses of the chosen items. chosen: bool [n_items]."""
    return item_losses(outputs.at(chosen))


def mean_loss(outputs: Outputs, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean of `item_losses`, each times its weight [n_items] where there are weights."""
    if weights is not None:
        return (weights * item_losses(outputs)).mean()
    if outputs.family != "categorical":
        return item_losses(outputs).mean()
    return F.cross_entropy(outputs.logits.float(), outputs.targets)


class TensorObjective:
    """A plain module: `network(x)` gives logits [batch, classes], or predictions where targets are floating point.

    Rows that are no `TensorRows` are samples, put into batches by the task's `loader.collate`; those of several tasks
    that share the function together, so that it pads them alike.

    With `head_mode` "task" a task that names its labels answers only among their columns of the output; a task's `y`
    counts within its own labels. Without labels, `y` is the output column itself.
    """

    traits: ClassVar[tuple[str, ...]] = ()

    def __init__(self, adapters: Adapters):
        self.adapters = adapters

    def encode(self, rows: Rows, task: Task, told: Callable[[int], None] | None = None) -> Features:
        if not isinstance(rows, TensorRows):
            return [Samples([(row["x"], row["y"])], task.loader.collate) for row in rows]
        labels = self.adapters.task_labels.get(task.name, ())
        if not labels:
            return TensorFeatures(rows, rows.y, None)
        columns = torch.tensor([self.adapters.columns[label] for label in labels])
        allowed = None
        if self.adapters.head_mode == "task":
            allowed = torch.zeros(len(self.adapters.columns), dtype=torch.bool)
            allowed[columns] = True
        return TensorFeatures(rows, columns[rows.y], allowed)

    def encode_answers(self, rows: Rows, task: Task) -> Features:
        """Turn rows into features to score."""
        return self.encode(rows, task)

    def take(self, features: Features, indices: list[int]) -> list[Any]:
        if not isinstance(features, TensorFeatures):
            return [features[i] for i in indices]
        index = torch.as_tensor(indices)
        picked = {"x": features.rows.inputs(index), "y": features.y[index]}
        if features.allowed is not None:
            picked["allowed"] = features.allowed.expand(len(index), -1)
        return [picked]

    def collate(self, picked: list[Any]) -> Batch:
        pieces = [piece.batch() if isinstance(piece, Samples) else piece for piece in _together(picked)]
        if len(pieces) == 1:
            return pieces[0]
        shapes = {name: [list(piece[name].shape) for piece in pieces] for name in pieces[0]}
        if any(len({tuple(shape[1:]) for shape in of_pieces}) > 1 for of_pieces in shapes.values()):
            way_out = "Give the data loaders of all tasks the same collate_fn, which then pads their rows together"
            raise StreamError(describe("batch", "rows of several tasks differ in shape", shapes, way_out))
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def forward(self, network: nn.Module, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        logits, targets = network(batch["x"]), batch["y"]
        past_logits = [logits if columns is None else logits[:, columns] for columns in self._past_columns(past)]
        if "allowed" in batch:
            logits = hide(logits, F.pad(batch["allowed"], (0, logits.shape[1] - batch["allowed"].shape[1])))
        return Outputs(logits, targets, torch.arange(len(targets), device=targets.device), past_logits)

    def n_items(self, batch: Batch) -> int:
        return len(batch["y"])

    def items_of_rows(self, batch: Batch) -> torch.Tensor:
        return torch.ones(len(batch["y"]), dtype=torch.long)

    def _past_columns(self, past: Sequence[str]) -> list[list[int] | None]:
        """Return the output columns of each answer that is wanted; None: all of them."""
        labels = [self.adapters.task_labels.get(task, ()) for task in past]
        columns = [[self.adapters.columns[label] for label in names] for names in labels if names]
        if not columns or self.adapters.head_mode == "task":
            return columns or [None] * bool(past)
        return [sorted({column for of_task in columns for column in of_task})]


def _together(picked: list[Any]) -> list[Any]:
    """Return the pieces of a batch, with neighbours that one function makes a batch of as one."""
    joined: list[Any] = []
    for piece in picked:
        before = joined[-1] if joined else None
        if isinstance(piece, Samples) and isinstance(before, Samples) and before.make_batch == piece.make_batch:
            joined[-1] = Samples([*before.samples, *piece.samples], piece.make_batch)
        else:
            joined.append(piece)
    return joined


def padded(lists: list[list[int]], value: int) -> torch.Tensor:
    """Return [n, longest], each list filled up with `value`; in numpy: a tensor of each list takes 4 times longer."""
    padded = np.full((len(lists), max(len(ids) for ids in lists)), value, dtype=np.int64)
    for line, ids in zip(padded, lists, strict=True):
        line[: len(ids)] = ids
    return torch.from_numpy(padded)


def at_targets(logits: torch.Tensor, targets: torch.Tensor) -> Outputs:
    """Keep the positions that have a target. logits [batch, sequence, classes], targets [batch, sequence]."""
    owners, places = torch.nonzero(targets != IGNORED, as_tuple=True)
    return Outputs(logits[owners, places], targets[owners, places], owners)


def answerable_first(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [n_items, n_classes] with the columns that a row may not answer behind the others, in their order.

    With it, how many columns each row may answer [n_items].
    """
    hidden = is_hidden(logits)
    return logits.gather(1, hidden.to(torch.uint8).argsort(dim=1, stable=True)), (~hidden).sum(1)


def hide(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Push masked-out logits so low that their probability is 0, yet finite, so that 0 * log p is 0 and not NaN."""
    return logits.masked_fill(~mask, torch.finfo(logits.dtype).min / 4)


def is_hidden(logits: torch.Tensor) -> torch.Tensor:
    """Tell which logits belong to classes that may not be answered: those that `hide` pushed down."""
    return logits < torch.finfo(logits.dtype).min / 8

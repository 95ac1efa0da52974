"""From rows to a loss, for each kind of data: encode rows, collate a batch, predict at the positions with a target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import StreamError, describe
from everlearn.models.adapters import Adapters
from everlearn.models.heads import column_mask
from everlearn.models.special import padding_id
from everlearn.models.tokens import CHUNK, LabelledFeatures, RaggedWriter, id_type
from everlearn.streams.rows import in_chunks
from everlearn.types import IGNORED, Outputs, Row, Rows, Task, TensorRows

MOST_WORDS = 2**16  # of a row that are tagged, so that a word's place takes two bytes
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
    """How one kind of network learns from rows."""

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
    """Return the negative log-likelihood of each target [n_items], nats (for regression: half the squared error)."""
    if outputs.targets.is_floating_point():
        # reshape, not broadcasting: [n, 1] - [n] would compare every prediction with every target
        errors = outputs.logits.float() - outputs.targets.float().reshape(outputs.logits.shape)
        return 0.5 * errors.square().reshape(len(errors), -1).sum(1)
    return F.cross_entropy(outputs.logits.float(), outputs.targets, reduction="none")


def losses_at(outputs: Outputs, chosen: torch.Tensor) -> torch.Tensor:
    """Return the losses of the chosen items. chosen: bool [n_items]."""
    return item_losses(Outputs(outputs.logits[chosen], outputs.targets[chosen], outputs.owners[chosen]))


def mean_loss(outputs: Outputs, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean of `item_losses`, each times its weight [n_items] where there are weights."""
    if weights is not None:
        return (weights * item_losses(outputs)).mean()
    if outputs.targets.is_floating_point():
        return item_losses(outputs).mean()
    return F.cross_entropy(outputs.logits.float(), outputs.targets)


class _LabelledObjective:
    """What sequence and token classification share: tokens in, and the columns of the head that a task may use."""

    def __init__(self, tokenizer: Any, adapters: Adapters, max_length: int):
        self.tokenizer = tokenizer
        self.adapters = adapters
        self.max_length = max_length
        self.padding = {"input_ids": padding_id(tokenizer), "token_type_ids": tokenizer.pad_token_type_id}

    def encode(self, rows: Rows, task: Task, told: Callable[[int], None] | None = None) -> LabelledFeatures:
        """Turn rows into features."""
        ids, paired = self._label_ids(task), self._paired(rows)
        kinds = {"input_ids": id_type(self.tokenizer), "token_type_ids": np.uint8}
        kinds["labels"] = np.min_scalar_type(min(IGNORED, -max(ids, default=0) - 1))
        kinds["read"] = np.uint16
        writers = {"labels": RaggedWriter(kinds["labels"])}
        for chunk in in_chunks(rows, CHUNK):
            encoded = self._tokens(chunk, paired, truncation=True, max_length=self.max_length)
            columns = {name: encoded[name] for name in encoded if name != "attention_mask"}
            for name, column in (columns | self._targets(encoded, chunk, ids)).items():
                writers.setdefault(name, RaggedWriter(kinds.get(name, np.int32))).add(column)
            if told is not None:
                told(len(chunk))
        return LabelledFeatures({name: writer.close() for name, writer in writers.items()}, self._task_index(task))

    def encode_answers(self, rows: Rows, task: Task) -> LabelledFeatures:
        """Turn rows into features to score."""
        return self.encode(rows, task)

    def take(self, features: Features, indices: list[int]) -> list[dict[str, Any]]:
        if isinstance(features, LabelledFeatures):
            return features.take(indices)
        return [features[i] for i in indices]

    def lengths(self, rows: Rows) -> list[int]:
        """Return how many tokens each row has, before anything is cut."""
        paired = self._paired(rows)
        chunks = (self._tokens(chunk, paired)["input_ids"] for chunk in in_chunks(rows, CHUNK))
        return [len(ids) for chunk in chunks for ids in chunk]

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        # all on the right, whatever side the tokenizer pads on: labels and absolute positions then fit in any batch
        names = [name for name in self.tokenizer.model_input_names if name in picked[0]]
        batch = {name: padded([f[name] for f in picked], self.padding.get(name, 0)) for name in names}
        if "attention_mask" in self.tokenizer.model_input_names:
            batch["attention_mask"] = padded([np.ones_like(f["input_ids"]) for f in picked], 0)
        batch["labels"] = padded([f["labels"] for f in picked], IGNORED)
        batch["tasks"] = torch.tensor([f["task"] for f in picked])
        return batch

    def forward(self, network: nn.Module, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "tasks")}
        head, labels = self.adapters.head, batch["labels"]
        shared = self.adapters.head_mode == "shared"
        head.active = list(range(len(head.blocks))) if shared else sorted(set(batch["tasks"].tolist()))
        logits = network(**inputs).logits
        past_logits = self._past_logits(logits, past)
        if not shared:
            logits, labels = self._mask_other_tasks(logits, labels, batch["tasks"])
        if logits.ndim == 2:
            logits, labels, past_logits = logits[:, None], labels[:, :1], [one[:, None] for one in past_logits]
        outputs = at_targets(logits, labels)
        outputs.past = [at_targets(one, labels).logits for one in past_logits]
        return outputs

    def n_items(self, batch: Batch) -> int:
        return int(self.items_of_rows(batch).sum())

    def items_of_rows(self, batch: Batch) -> torch.Tensor:
        return (batch["labels"] != IGNORED).sum(1)

    def _past_logits(self, logits: torch.Tensor, past: Sequence[str]) -> list[torch.Tensor]:
        """Return the logits of earlier tasks' classes, from the features of the pass that just ended."""
        if not past:
            return []
        if self.adapters.head_mode == "shared":
            known = sorted({self.adapters.columns[label] for task in past for label in self.adapters.task_labels[task]})
            return [logits[..., known]]
        return [self.adapters.head.block_logits(self.adapters.task_blocks[task]) for task in past]

    def _task_index(self, task: Task) -> int:
        return self.adapters.task_blocks.get(task.name, 0)

    def _label_ids(self, task: Task) -> list[int]:
        """Return the target of each of the task's labels: its place in the task's block, or in the shared head."""
        if self.adapters.head_mode == "shared":
            return [self.adapters.columns[label] for label in task.labels]
        return list(range(len(task.labels)))

    def _mask_other_tasks(
        self, logits: torch.Tensor, labels: torch.Tensor, tasks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head = self.adapters.head
        if len(head.active) == 1:
            return logits, labels
        sizes = [head.blocks[i].out_features for i in head.active]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        spans = [(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        place = torch.tensor([head.active.index(i) for i in tasks.tolist()], device=logits.device)
        mask = column_mask(spans, logits.shape[-1]).to(logits.device)[place]
        mask = mask if logits.ndim == 2 else mask[:, None]
        shift = torch.tensor(starts, device=labels.device)[place][:, None]
        return _hide(logits, mask), torch.where(labels == IGNORED, labels, labels + shift)


class ClassifyObjective(_LabelledObjective):
    """One label for a text, or for a pair of texts."""

    def _targets(self, encoded: Any, rows: list[Row], ids: list[int]) -> dict[str, list[list[int]]]:
        return {"labels": [[ids[row["label"]]] for row in rows]}

    def _paired(self, rows: Rows) -> bool:
        if isinstance(rows, datasets.Dataset):  # one column is read, not all of them
            return "text_pair" in rows.column_names and any(rows["text_pair"])
        return any(row.get("text_pair") for row in rows)

    def _tokens(self, rows: list[Row], paired: bool, **options: Any) -> Any:
        second = [row.get("text_pair") or "" for row in rows] if paired else None
        return self.tokenizer([row["text"] for row in rows], second, verbose=False, **options)


class TagObjective(_LabelledObjective):
    """One tag for each word, at the word's first token; a tag below 0 is no target.

    A feature's `read` holds the words that have a target within the context; the others are never answered, nor is any
    word past the first 65,536.
    """

    def _targets(self, encoded: Any, rows: list[Row], ids: list[int]) -> dict[str, list[list[int]]]:
        labels, read = [], []
        for i, row in enumerate(rows):
            words = encoded.word_ids(i)
            starts = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
            targets = [tag if tag < 0 else ids[tag] for tag in row["tags"]]
            firsts = list(zip(words, starts, strict=True))
            labels.append([targets[word] if first else IGNORED for word, first in firsts])
            read.append([word for word, first in firsts if first and targets[word] >= 0])
        return {"labels": labels, "read": read}

    def n_words_read(self, rows: Rows) -> int:
        """Return how many words that have a target lie within the context."""
        count = 0
        for chunk in in_chunks(rows, CHUNK):
            encoded = self._tokens(chunk, False, truncation=True, max_length=self.max_length)
            for i, row in enumerate(chunk):
                count += sum(row["tags"][word] >= 0 for word in set(encoded.word_ids(i)) - {None})
        return count

    def _paired(self, rows: Rows) -> bool:
        return False

    def _tokens(self, rows: list[Row], paired: bool, **options: Any) -> Any:
        words = [list(row["tokens"][:MOST_WORDS]) for row in rows]
        return self.tokenizer(words, is_split_into_words=True, verbose=False, **options)


class TensorObjective:
    """A plain module: `network(x)` gives logits [batch, classes], or predictions where targets are floating point.

    Rows that are no `TensorRows` are samples, put into batches by the task's `loader.collate`; those of several tasks
    that share the function together, so that it pads them alike.

    With `head_mode` "task" a task that names its labels answers only among their columns of the output; a task's `y`
    counts within its own labels. Without labels, `y` is the output column itself.
    """

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
            logits = _hide(logits, F.pad(batch["allowed"], (0, logits.shape[1] - batch["allowed"].shape[1])))
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


def _hide(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Push masked-out logits so low that their probability is 0, yet finite, so that 0 * log p is 0 and not NaN."""
    return logits.masked_fill(~mask, torch.finfo(logits.dtype).min / 4)


def is_hidden(logits: torch.Tensor) -> torch.Tensor:
    """Tell which logits belong to classes that may not be answered: those that `_hide` pushed down."""
    return logits < torch.finfo(logits.dtype).min / 8

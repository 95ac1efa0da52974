"""Heads on texts: a label, a number, or a tag for each word; of encoders, and of language models with a head."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from torch import nn

from everlearn.models.adapters import Adapters, Scale
from everlearn.models.heads import column_mask
from everlearn.models.objectives import Batch, Features, at_targets, hide, padded
from everlearn.models.special import padding_id
from everlearn.models.tokens import CHUNK, LabelledFeatures, RaggedWriter, id_type
from everlearn.streams.rows import in_chunks
from everlearn.types import IGNORED, Outputs, Row, Rows, Task

BESIDE_INPUTS = ("labels", "tasks", "columns")  # what a batch has beside the network's inputs
MOST_WORDS = 2**16  # of a row that are tagged, so that a word's place takes two bytes


class LabelledObjective:
    """What sequence and token classification share: tokens in, and the columns of the head that a task may use.

    Attributes:
        traits: what a method may be unsuited for, see `Model.traits`.
    """

    traits: ClassVar[tuple[str, ...]] = ()

    def __init__(self, tokenizer: Any, adapters: Adapters, max_length: int):
        self.tokenizer = tokenizer
        self.adapters = adapters
        self.max_length = max_length
        self.padding = {"input_ids": padding_id(tokenizer), "token_type_ids": tokenizer.pad_token_type_id}

    def encode(self, rows: Rows, task: Task, told: Callable[[int], None] | None = None) -> LabelledFeatures:
        """Turn rows into features."""
        known, paired = self._known(task), self._paired(rows)
        kinds = {"input_ids": id_type(self.tokenizer), "token_type_ids": np.uint8}
        kinds["labels"] = self._target_type(known)
        kinds["read"] = np.uint16
        writers = {"labels": RaggedWriter(kinds["labels"])}
        for chunk in in_chunks(rows, CHUNK):
            encoded = self._tokens(chunk, paired, truncation=True, max_length=self.max_length)
            columns = {name: encoded[name] for name in encoded if name != "attention_mask"}
            for name, column in (columns | self._targets(encoded, chunk, known)).items():
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
        batch["labels"] = self._stacked([f["labels"] for f in picked])
        batch["tasks"] = torch.tensor([f["task"] for f in picked])
        return batch

    def forward(self, network: nn.Module, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        inputs = {name: tensor for name, tensor in batch.items() if name not in BESIDE_INPUTS}
        head, labels = self.adapters.head, batch["labels"]
        shared = self.adapters.head_mode == "shared"
        head.active = list(range(len(head.blocks))) if shared else sorted(set(batch["tasks"].tolist()))
        logits = network(**inputs).logits
        return self._outputs(logits, labels, batch, self._past_logits(logits, past))

    def _outputs(
        self, logits: torch.Tensor, labels: torch.Tensor, batch: Batch, past_logits: list[torch.Tensor]
    ) -> Outputs:
        """Return what is answered at each target. logits: by the active blocks of the head, side by side."""
        if self.adapters.head_mode == "task":
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

    def _known(self, task: Task) -> Any:
        """Return what turns answers into targets: of each label its place in the task's block, or the shared head."""
        if self.adapters.head_mode == "shared":
            return [self.adapters.columns[label] for label in task.labels]
        return list(range(len(task.labels)))

    def _target_type(self, known: Any) -> Any:
        return np.min_scalar_type(min(IGNORED, -max(known, default=0) - 1))

    def _stacked(self, targets: list[list[int]]) -> torch.Tensor:
        return padded(targets, IGNORED)

    def _place(self, tasks: torch.Tensor) -> torch.Tensor:
        """Return which of the active blocks each row's task has."""
        return torch.tensor([self.adapters.head.active.index(i) for i in tasks.tolist()])

    def _blocks(self) -> tuple[list[int], list[int]]:
        """Return where the active blocks of the head begin, side by side, and how many columns each has."""
        sizes = [self.adapters.head.blocks[i].out_features for i in self.adapters.head.active]
        return [sum(sizes[:i]) for i in range(len(sizes))], sizes

    def _mask_other_tasks(
        self, logits: torch.Tensor, labels: torch.Tensor, tasks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.adapters.head.active) == 1:
            return logits, labels
        starts, sizes = self._blocks()
        spans = [(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        place = self._place(tasks).to(logits.device)
        mask = column_mask(spans, logits.shape[-1]).to(logits.device)[place]
        mask = mask if logits.ndim == 2 else mask[:, None]
        shift = torch.tensor(starts, device=labels.device)[place][:, None]
        return hide(logits, mask), torch.where(labels == IGNORED, labels, labels + shift)


class TextObjective(LabelledObjective):
    """What an answer to a text, or to a pair of texts, is read from."""

    def _paired(self, rows: Rows) -> bool:
        if isinstance(rows, datasets.Dataset):  # one column is read, not all of them
            return "text_pair" in rows.column_names and any(rows["text_pair"])
        return any(row.get("text_pair") for row in rows)

    def _tokens(self, rows: list[Row], paired: bool, **options: Any) -> Any:
        second = [row.get("text_pair") or "" for row in rows] if paired else None
        return self.tokenizer([row["text"] for row in rows], second, verbose=False, **options)


class ClassifyObjective(TextObjective):
    """One label for a text, or for a pair of texts."""

    def _targets(self, encoded: Any, rows: list[Row], known: list[int]) -> dict[str, list[list[int]]]:
        return {"labels": [[known[row["label"]]] for row in rows]}


class MultiLabelObjective(TextObjective):
    """Several labels for a text, or for a pair of texts: each is there or not, by itself.

    A row's loss is the sum over its task's labels of their binary cross-entropies: its log-likelihood. It says nothing
    of labels that other tasks have, in a head that is shared neither.
    """

    traits: ClassVar[tuple[str, ...]] = ("several_labels",)

    def _target_type(self, known: list[int]) -> Any:
        return np.uint8

    def _targets(self, encoded: Any, rows: list[Row], known: list[int]) -> dict[str, list[list[int]]]:
        found = [set(row["labels"]) for row in rows]
        return {
            "labels": [[int(label in own) for label in range(len(known))] for own in found],
            "columns": [known for _ in rows],
        }

    def _stacked(self, targets: list[list[int]]) -> torch.Tensor:
        return padded(targets, IGNORED).float()

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        return {**super().collate(picked), "columns": padded([f["columns"] for f in picked], 0)}

    def items_of_rows(self, batch: Batch) -> torch.Tensor:
        return torch.ones(len(batch["labels"]), dtype=torch.long, device=batch["labels"].device)

    def _outputs(
        self, logits: torch.Tensor, labels: torch.Tensor, batch: Batch, past_logits: list[torch.Tensor]
    ) -> Outputs:
        """Return of each row the logits of its task's labels, in their order, [batch, most labels of a task]."""
        columns, there = batch["columns"], labels != IGNORED
        if self.adapters.head_mode == "task":
            starts = torch.tensor(self._blocks()[0])[self._place(batch["tasks"])]
            columns = columns + starts.to(columns.device)[:, None]
        own = hide(logits.gather(1, columns.where(there, 0)), there)
        owners = torch.arange(len(labels), device=labels.device)
        return Outputs(own, labels.where(there, 0.0), owners, past_logits, binary=True)


class ScoreObjective(TextObjective):
    """A number for a text, or for a pair of texts: least squares, in standard deviations of the task's numbers.

    One output of the head for each task, or one that all share.
    """

    traits: ClassVar[tuple[str, ...]] = ("numbers",)

    def _known(self, task: Task) -> Scale:
        return self.adapters.scales[task.name]

    def _target_type(self, known: Scale) -> Any:
        return np.float32

    def _targets(self, encoded: Any, rows: list[Row], known: Scale) -> dict[str, list[list[float]]]:
        return {"labels": [[known.standardised(row["score"])] for row in rows]}

    def _stacked(self, targets: list[list[float]]) -> torch.Tensor:
        return torch.from_numpy(np.array(targets, np.float32))

    def _mask_other_tasks(
        self, logits: torch.Tensor, labels: torch.Tensor, tasks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return of each row the output of its own task."""
        return logits.gather(1, self._place(tasks).to(logits.device)[:, None]), labels


class TagObjective(LabelledObjective):
    """One tag for each word, at the word's first token; a tag below 0 is no target.

    A feature's `read` holds the words that have a target within the context; the others are never answered, nor is any
    word past the first 65,536.
    """

    def _targets(self, encoded: Any, rows: list[Row], known: list[int]) -> dict[str, list[list[int]]]:
        labels, read = [], []
        for i, row in enumerate(rows):
            words = encoded.word_ids(i)
            starts = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
            targets = [tag if tag < 0 else known[tag] for tag in row["tags"]]
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

"""From rows to a loss, for each kind of data: encode rows, collate a batch, predict at the positions with a target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ConfigError, StreamError, describe
from everlearn.models.adapters import Adapters
from everlearn.models.heads import column_mask
from everlearn.types import IGNORED, Outputs, Row, Rows, Task

LEAST_ROOM = 32  # tokens that an answer may always have

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TensorFeatures(Sequence):
    """Encoded `TensorRows`: x [n, ...], y [n] as output columns, and the columns that may be answered [n_columns]."""

    x: torch.Tensor
    y: torch.Tensor
    allowed: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "y": self.y[index]}


Features = Sequence[dict[str, Any]]


class Objective(Protocol):
    """How one kind of network learns from rows."""

    def encode(self, rows: Rows, task: Task) -> Features:
        """Turn rows into features: token ids and labels as lists of int, or tensors."""
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


def mean_loss(outputs: Outputs) -> torch.Tensor:
    """Return the mean of `item_losses`."""
    if outputs.targets.is_floating_point():
        return item_losses(outputs).mean()
    return F.cross_entropy(outputs.logits.float(), outputs.targets)


class CausalObjective:
    """Next-token prediction: the completion after a prompt, or every token of a text."""

    def __init__(self, tokenizer: Any, max_length: int):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
        self.before_forward: Callable[[Batch], None] | None = None  # is shown each batch: inputs alone hide the labels

    def encode(self, rows: Rows, task: Task) -> list[dict[str, Any]]:
        if task.kind == "text":
            ids = self._ids([row["text"] for row in rows], special=True)
            return [self._feature([], tokens, task) for tokens in ids]
        if not len(rows):
            return []
        prompts, completions = zip(*(self.prompt_and_completion(row) for row in rows), strict=True)
        pairs = zip(self._ids(list(prompts), special=True), self._ids(list(completions), special=False), strict=True)
        return [self._feature(prompt, completion, task) for prompt, completion in pairs]

    def prompt_and_completion(self, row: Row) -> tuple[str, str]:
        """Return a row's two texts; `messages` go through the tokenizer's chat template, the last one is completed."""
        if "messages" not in row:
            return row["prompt"], row["completion"]
        if self.tokenizer.chat_template is None:
            way_out = "Use prompt/completion columns, or a model whose tokenizer has a chat template"
            raise StreamError(describe("messages", "the tokenizer has no chat template", row["messages"], way_out))
        messages = list(row["messages"])
        prompt = self.tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        return prompt, messages[-1]["content"]

    def prompt_ids(self, prompts: list[str], room: int) -> list[list[int]]:
        """Return the token ids to generate from, cut on the left to leave `room` tokens for the answer.

        Raises:
            ConfigError: if the context has no room for a prompt beside it.
        """
        if room >= self.max_length:
            way_out = f"Give at most {self.max_length - 1}, of which the prompt needs its part"
            raise ConfigError(describe("max_new_tokens", "leaves no room for a prompt in the context", room, way_out))
        return [ids[room - self.max_length :] for ids in self._ids(prompts, special=True)]

    def answer_room(self, task: Task) -> int:
        """Return how many tokens an answer may have: as the task says, or else a quarter more than its longest."""
        if task.max_new_tokens is not None:
            return task.max_new_tokens
        texts = [self.prompt_and_completion(row)[1] for row in task.evaluation]
        longest = max((len(ids) for ids in self._ids(texts, special=False)), default=0)
        return min(max(LEAST_ROOM, longest + longest // 4 + 1), self.max_length - 1)

    def take(self, features: Features, indices: list[int]) -> list[dict[str, Any]]:
        return [features[i] for i in indices]

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        lengths = [len(feature["input_ids"]) for feature in picked]
        batch = {
            "input_ids": _pad([feature["input_ids"] for feature in picked], self.pad_id),
            "labels": _pad([feature["labels"] for feature in picked], IGNORED),
        }
        if min(lengths) < max(lengths):
            batch["attention_mask"] = _pad([[1] * length for length in lengths], 0)
        return batch

    def forward(self, network: nn.Module, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        if self.before_forward is not None:
            self.before_forward(batch)
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = network(**inputs, use_cache=False).logits[:, :-1]
        outputs = _select(logits, batch["labels"][:, 1:])
        outputs.past = [outputs.logits] if past else []
        return outputs

    def n_items(self, batch: Batch) -> int:
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def _ids(self, texts: list[str], special: bool) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"] if texts else []

    def _feature(self, prompt: list[int], completion: list[int], task: Task) -> dict[str, Any]:
        """Join prompt and completion and <eos>; too long: the prompt loses its start, then the completion its end."""
        end = self.tokenizer.eos_token_id
        if end is not None and completion[-1:] != [end]:
            completion = [*completion, end]
        completion = completion[: self.max_length - bool(prompt)]
        prompt = prompt[max(0, len(prompt) + len(completion) - self.max_length) :]
        return {"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion}


class _LabelledObjective:
    """What sequence and token classification share: tokens in, and the columns of the head that a task may use."""

    def __init__(self, tokenizer: Any, adapters: Adapters, max_length: int):
        self.tokenizer = tokenizer
        self.adapters = adapters
        self.max_length = max_length

    def take(self, features: Features, indices: list[int]) -> list[dict[str, Any]]:
        return [features[i] for i in indices]

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        names = [name for name in picked[0] if name not in ("labels", "task")]
        batch = dict(self.tokenizer.pad([{name: f[name] for name in names} for f in picked], return_tensors="pt"))
        batch["labels"] = _pad([f["labels"] for f in picked], IGNORED)
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
        outputs = _select(logits, labels)
        outputs.past = [_select(one, labels).logits for one in past_logits]
        return outputs

    def n_items(self, batch: Batch) -> int:
        return int((batch["labels"] != IGNORED).sum())

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

    def encode(self, rows: Rows, task: Task) -> list[dict[str, Any]]:
        pairs = [row.get("text_pair") for row in rows]
        second = [pair or "" for pair in pairs] if any(pairs) else None
        encoded = self.tokenizer(
            [row["text"] for row in rows], second, truncation=True, max_length=self.max_length, verbose=False
        )
        ids = self._label_ids(task)
        return [
            {
                **{name: encoded[name][i] for name in encoded},
                "labels": [ids[row["label"]]],
                "task": self._task_index(task),
            }
            for i, row in enumerate(rows)
        ]


class TagObjective(_LabelledObjective):
    """One tag for each word, at the word's first token."""

    def encode(self, rows: Rows, task: Task) -> list[dict[str, Any]]:
        encoded = self.tokenizer(
            [list(row["tokens"]) for row in rows], is_split_into_words=True, truncation=True, max_length=self.max_length
        )
        ids = {**dict(enumerate(self._label_ids(task))), IGNORED: IGNORED}
        features = []
        for i, row in enumerate(rows):
            words = encoded.word_ids(i)
            starts = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
            labels = [ids[row["tags"][word]] if first else IGNORED for word, first in zip(words, starts, strict=True)]
            inputs = {name: encoded[name][i] for name in encoded}
            features.append({**inputs, "labels": labels, "task": self._task_index(task)})
        return features


class TensorObjective:
    """A plain module: `network(x)` gives logits [batch, classes], or predictions where targets are floating point.

    With `head_mode` "task" a task that names its labels answers only among their columns of the output; a task's `y`
    counts within its own labels. Without labels, `y` is the output column itself.
    """

    def __init__(self, adapters: Adapters):
        self.adapters = adapters

    def encode(self, rows: Rows, task: Task) -> TensorFeatures:
        x, y = rows.x, rows.y
        labels = self.adapters.task_labels.get(task.name, ())
        if not labels:
            return TensorFeatures(x, y, None)
        columns = torch.tensor([self.adapters.columns[label] for label in labels])
        allowed = None
        if self.adapters.head_mode == "task":
            allowed = torch.zeros(len(self.adapters.columns), dtype=torch.bool)
            allowed[columns] = True
        return TensorFeatures(x, columns[y], allowed)

    def take(self, features: TensorFeatures, indices: list[int]) -> list[dict[str, Any]]:
        index = torch.as_tensor(indices)
        picked = {"x": features.x[index], "y": features.y[index]}
        if features.allowed is not None:
            picked["allowed"] = features.allowed.expand(len(index), -1)
        return [picked]

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        if len(picked) == 1:
            return picked[0]
        return {name: torch.cat([piece[name] for piece in picked]) for name in picked[0]}

    def forward(self, network: nn.Module, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        logits, targets = network(batch["x"]), batch["y"]
        past_logits = [logits if columns is None else logits[:, columns] for columns in self._past_columns(past)]
        if "allowed" in batch:
            logits = _hide(logits, F.pad(batch["allowed"], (0, logits.shape[1] - batch["allowed"].shape[1])))
        return Outputs(logits, targets, torch.arange(len(targets), device=targets.device), past_logits)

    def n_items(self, batch: Batch) -> int:
        return len(batch["y"])

    def _past_columns(self, past: Sequence[str]) -> list[list[int] | None]:
        """Return the output columns of each answer that is wanted; None: all of them."""
        labels = [self.adapters.task_labels.get(task, ()) for task in past]
        columns = [[self.adapters.columns[label] for label in names] for names in labels if names]
        if not columns or self.adapters.head_mode == "task":
            return columns or [None] * bool(past)
        return [sorted({column for of_task in columns for column in of_task})]


def _pad(lists: list[list[int]], value: int) -> torch.Tensor:
    """Return [n, longest], each list filled up with `value`; in numpy: a tensor of each list takes 4 times longer."""
    padded = np.full((len(lists), max(len(ids) for ids in lists)), value, dtype=np.int64)
    for line, ids in zip(padded, lists, strict=True):
        line[: len(ids)] = ids
    return torch.from_numpy(padded)


def _select(logits: torch.Tensor, targets: torch.Tensor) -> Outputs:
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

"""From rows to a loss, for each kind of data: encode rows, collate a batch, predict at the positions with a target."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ConfigError, StreamError, describe
from everlearn.models.adapters import Adapters
from everlearn.models.chat import NO_TEMPLATE, ChatFormat, TemplateRefusal, as_messages
from everlearn.models.heads import column_mask
from everlearn.models.special import padding_id, special_ids
from everlearn.types import IGNORED, Outputs, Row, Rows, Task, TensorRows

LEAST_ROOM = 32  # tokens that an answer may always have
TEXT_TOKENS = 1024  # in an example of running text, at most

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

    def encode(self, rows: Rows, task: Task) -> Features:
        """Turn rows into features: token ids and labels as lists of int, or tensors."""
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


class CausalObjective:
    """Next-token prediction: the completion after a prompt, or every token of a text.

    Args:
        max_length: tokens in an example, at most.
        chat: whether prompts and completions are put as turns of a conversation; `messages` always are one.
        stop_ids: tokens that end an answer, beside the tokenizer's own end and that of its chat template.

    Attributes:
        train_on: last or all: which answers of a conversation are targets in training; scores are of the last.
    """

    def __init__(self, tokenizer: Any, max_length: int, *, chat: bool = False, stop_ids: Sequence[int] = ()):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.wraps = chat
        self.format = ChatFormat.of(tokenizer) if tokenizer.chat_template is not None else None
        self.prefix, self.suffix = special_ids(tokenizer)
        self.train_on = "last"
        ends = {*stop_ids, tokenizer.eos_token_id, self.format.end_id if self.format is not None else None}
        self.stop_ids = sorted(ends - {None})
        self.pad_id = padding_id(tokenizer)
        self.before_forward: Callable[[Batch], None] | None = None  # is shown each batch: inputs alone hide the labels

    def encode(self, rows: Rows, task: Task) -> list[dict[str, Any]]:
        """Turn rows into features. A text that is longer than an example becomes several, one after another."""
        return [self._feature(*pair, place) for place, pair in self._encoded(rows, task, self.train_on)]

    def encode_answers(self, rows: Rows, task: Task) -> list[dict[str, Any]]:
        """Turn rows into features to score: of a conversation the last answer alone is a target."""
        return [self._feature(*pair, place) for place, pair in self._encoded(rows, task, "last")]

    def in_examples(self, task: Task) -> Task:
        """Return the task with a training row for each example: those of long texts carry their tokens, `input_ids`."""
        if task.kind != "text":
            return task
        rows = []
        for feature in self.encode(task.train, task):
            row, ids = task.train[feature["row"]], feature["input_ids"]
            rows.append({**row, "text": self.tokenizer.decode(ids, skip_special_tokens=True), "input_ids": ids})
        return replace(task, train=rows) if len(rows) > len(task.train) else task

    def lengths(self, rows: Rows, task: Task) -> list[tuple[int, int]]:
        """Return how many tokens the prompt and the completion of each row have, before anything is cut."""
        pairs = (pair for _, pair in self._encoded(rows, task, "last"))
        return [(len(ids) - sum(targets), sum(targets)) for ids, targets in pairs]

    def answer_ids(self, rows: Rows, task: Task) -> list[list[int]]:
        """Return the tokens of each row's answer, up to the one that ends it."""
        answers = []
        for _, (ids, targets) in self._encoded(rows, task, "last"):
            completion = [token for token, wanted in zip(ids, targets, strict=True) if wanted]
            answers.append(completion[: self.end_of(completion)])
        return answers

    def prompt_and_completion(self, row: Row) -> tuple[str, str]:
        """Return a row's two texts; those of a conversation as the tokenizer's chat template writes them."""
        if not self.is_chat(row):
            return row["prompt"], row["completion"]
        return self._format(row).texts(as_messages(row), row.get("tools"))

    def is_chat(self, row: Row) -> bool:
        """Return whether a row is a conversation, or is put as one."""
        return self.wraps or row.get("messages") is not None

    def prompt_ids(self, prompts: Sequence[str], room: int, *, chat: bool | None = None) -> list[list[int]]:
        """Return the token ids to generate from; too long ones are cut to leave `room` tokens for the answer.

        What is cut is their start, behind the tokens that begin every text.

        Args:
            prompts: as `prompt_and_completion` returns them. chat: whether the chat template wrote them; by default
                whether this objective puts prompts as turns.

        Raises:
            ConfigError: if the context has no room for a prompt beside it.
        """
        if room >= self.max_length:
            way_out = f"Give at most {self.max_length - 1}, of which the prompt needs its part"
            raise ConfigError(describe("max_new_tokens", "leaves no room for a prompt in the context", room, way_out))
        ids = self._ids(list(prompts))
        if not (self.wraps if chat is None else chat):
            ids = [self.prefix + prompt for prompt in ids]
        return [self._cut(prompt, self.max_length - room) for prompt in ids]

    def questions(self, rows: Rows, room: int) -> list[list[int]]:
        """Return the token ids that each row's answer is generated from; see `prompt_ids`."""
        return [self.prompt_ids([self.prompt_and_completion(row)[0]], room, chat=self.is_chat(row))[0] for row in rows]

    def right_answer(self, row: Row) -> str:
        """Return the answer that counts as right, as the tokenizer gives it back: its own rules may have changed it."""
        return self.answer_of(self._ids([self.prompt_and_completion(row)[1]])[0])

    def answer_of(self, ids: Sequence[int]) -> str:
        """Return the text of an answer up to its end, without what a chat template writes around it."""
        kept = [token for token in ids[: self.end_of(ids)] if token != self.pad_id]
        text = self.tokenizer.decode(kept).strip()
        return self.format.answer_of(text) if self.format is not None else text

    def answer_room(self, task: Task) -> int:
        """Return how many tokens an answer may have: as the task says, or else a quarter more than its longest."""
        if task.max_new_tokens is not None:
            return task.max_new_tokens
        longest = max((n for _, n in self.lengths(task.evaluation, task)), default=0)  # its end with it
        return min(max(LEAST_ROOM, longest + longest // 4), self.max_length - 1)

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
        return int(self.items_of_rows(batch).sum())

    def items_of_rows(self, batch: Batch) -> torch.Tensor:
        return (batch["labels"][:, 1:] != IGNORED).sum(1)

    def end_of(self, ids: Sequence[int]) -> int:
        """Return the place of the first token that ends an answer, its length where there is none."""
        return next((place for place, token in enumerate(ids) if token in self.stop_ids), len(ids))

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []

    def _encoded(self, rows: Rows, task: Task, train_on: str) -> Iterator[tuple[int, tuple[list[int], list[bool]]]]:
        """Yield (row number, (ids, whether each is a target)); a long text comes in several pieces."""
        if task.kind == "text":
            yield from self._texts(rows)
        elif any(self.is_chat(row) for row in rows):
            for place, row in enumerate(rows):
                yield place, self._conversation(row, f"task {task.name!r}, row {place + 1}", train_on)
        elif len(rows):
            prompts, completions = (self._ids([row[name] for row in rows]) for name in ("prompt", "completion"))
            for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
                prompt, completion = self.prefix + prompt, self._ended(completion)
                yield place, (prompt + completion, [False] * len(prompt) + [True] * len(completion))

    def _texts(self, rows: Rows) -> Iterator[tuple[int, tuple[list[int], list[bool]]]]:
        plain = self._ids([row["text"] for row in rows if "input_ids" not in row])
        others = iter(plain)
        for place, row in enumerate(rows):
            pieces = [row["input_ids"]] if "input_ids" in row else self._pieces(next(others))
            for piece in pieces:
                yield place, (list(piece), [True] * len(piece))

    def _pieces(self, ids: list[int]) -> list[list[int]]:
        """Cut a text into examples that together hold each of its tokens once as a target.

        Each begins as a text does; where nothing begins a text, with the last token of the piece before, for the first
        token of an example is no target.
        """
        ids, size = self._ended(ids + self.suffix), min(self.max_length, TEXT_TOKENS)
        first = self.prefix + ids[: size - len(self.prefix)]
        pieces, done = [first], size - len(self.prefix)
        while done < len(ids):
            begin = self.prefix or [ids[done - 1]]
            pieces.append(begin + ids[done : done + size - len(begin)])
            done += size - len(begin)
        return pieces

    def _conversation(self, row: Row, where: str, train_on: str) -> tuple[list[int], list[bool]]:
        try:
            return self._format(row, where).encode(as_messages(row), row.get("tools"), train_on)
        except TemplateRefusal as error:
            way_out = "Mend the messages, or use a model whose template takes them"
            what = f"the model's chat template refuses it ({error})"
            raise StreamError(describe(where, what, as_messages(row), way_out)) from error

    def _format(self, row: Row, where: str = "messages") -> ChatFormat:
        if self.format is None:
            raise StreamError(describe(where, "the tokenizer has no chat template", as_messages(row), NO_TEMPLATE))
        return self.format

    def _ended(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    def _cut(self, prompt: list[int], length: int) -> list[int]:
        """Return a prompt of at most `length` tokens: what begins every text, and its end."""
        if len(prompt) <= length:
            return prompt
        begin = self.prefix if prompt[: len(self.prefix)] == self.prefix and length > len(self.prefix) else []
        return begin + prompt[len(prompt) - length + len(begin) :]

    def _feature(self, ids: list[int], targets: list[bool], row: int) -> dict[str, Any]:
        """Return an example of at most `max_length` tokens: too long, it loses the prompt's start, then its own end."""
        if len(ids) > self.max_length:
            first = targets.index(True)
            n_prompt = max(self.max_length - (len(ids) - first), min(first, len(self.prefix) + 1))
            kept = [*self._cut(ids[:first], n_prompt), *ids[first:]]
            targets = [*targets[first - n_prompt : first], *targets[first:]]
            ids, targets = kept[: self.max_length], targets[: self.max_length]
        labels = [token if wanted else IGNORED for token, wanted in zip(ids, targets, strict=True)]
        return {"input_ids": ids, "labels": labels, "row": row}


class _LabelledObjective:
    """What sequence and token classification share: tokens in, and the columns of the head that a task may use."""

    def __init__(self, tokenizer: Any, adapters: Adapters, max_length: int):
        self.tokenizer = tokenizer
        self.adapters = adapters
        self.max_length = max_length
        self.padding = {"input_ids": padding_id(tokenizer), "token_type_ids": tokenizer.pad_token_type_id}

    def encode_answers(self, rows: Rows, task: Task) -> list[dict[str, Any]]:
        """Turn rows into features to score."""
        return self.encode(rows, task)

    def take(self, features: Features, indices: list[int]) -> list[dict[str, Any]]:
        return [features[i] for i in indices]

    def lengths(self, rows: Rows) -> list[int]:
        """Return how many tokens each row has, before anything is cut."""
        return [len(ids) for ids in self._tokens(rows)["input_ids"]] if len(rows) else []

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        # all on the right, whatever side the tokenizer pads on: labels and absolute positions then fit in any batch
        names = [name for name in self.tokenizer.model_input_names if name in picked[0]]
        batch = {name: _pad([f[name] for f in picked], self.padding.get(name, 0)) for name in names}
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

    def encode(self, rows: Rows, task: Task) -> list[dict[str, Any]]:
        encoded, ids = self._tokens(rows, truncation=True, max_length=self.max_length), self._label_ids(task)
        return [
            {
                **{name: encoded[name][i] for name in encoded},
                "labels": [ids[row["label"]]],
                "task": self._task_index(task),
            }
            for i, row in enumerate(rows)
        ]

    def _tokens(self, rows: Rows, **options: Any) -> Any:
        pairs = [row.get("text_pair") for row in rows]
        second = [pair or "" for pair in pairs] if any(pairs) else None
        return self.tokenizer([row["text"] for row in rows], second, verbose=False, **options)


class TagObjective(_LabelledObjective):
    """One tag for each word, at the word's first token; a tag below 0 is no target.

    A feature's `read` holds the words that have a target within the context; the others are never answered.
    """

    def encode(self, rows: Rows, task: Task) -> list[dict[str, Any]]:
        encoded, ids = self._tokens(rows, truncation=True, max_length=self.max_length), self._label_ids(task)
        features = []
        for i, row in enumerate(rows):
            words = encoded.word_ids(i)
            starts = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
            targets = [tag if tag < 0 else ids[tag] for tag in row["tags"]]
            labels = [targets[word] if first else IGNORED for word, first in zip(words, starts, strict=True)]
            read = [word for word, first in zip(words, starts, strict=True) if first and targets[word] >= 0]
            inputs = {name: encoded[name][i] for name in encoded}
            features.append({**inputs, "labels": labels, "task": self._task_index(task), "read": read})
        return features

    def _tokens(self, rows: Rows, **options: Any) -> Any:
        words = [list(row["tokens"]) for row in rows]
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

    def encode(self, rows: Rows, task: Task) -> Features:
        if not isinstance(rows, TensorRows):
            return [Samples([(row["x"], row["y"])], task.loader.collate) for row in rows]
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

    def encode_answers(self, rows: Rows, task: Task) -> Features:
        """Turn rows into features to score."""
        return self.encode(rows, task)

    def take(self, features: Features, indices: list[int]) -> list[Any]:
        if not isinstance(features, TensorFeatures):
            return [features[i] for i in indices]
        index = torch.as_tensor(indices)
        picked = {"x": features.x[index], "y": features.y[index]}
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

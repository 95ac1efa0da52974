"""Next-token prediction: from prompts, conversations or running text to a loss at the positions with a target."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import datasets
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ConfigError, StreamError, describe
from everlearn.models.chat import NO_TEMPLATE, ChatFormat, TemplateRefusal, as_messages
from everlearn.models.objectives import Batch, Features, padded
from everlearn.models.positions import at_wanted, positions_to_keep
from everlearn.models.special import padding_id, special_ids
from everlearn.models.steps import final_answer, with_steps
from everlearn.models.tokens import CHUNK, Encoded, Span, TokenFeatures, TokenWriter, id_type
from everlearn.streams.rows import NestedRows, in_chunks
from everlearn.types import IGNORED, Outputs, Row, Rows, Task

LEAST_ROOM = 32  # tokens that an answer may always have
TEXT_TOKENS = 1024  # in an example of running text, at most


@dataclass(frozen=True, eq=False)
class TextExamples(Sequence):
    """The examples that long texts fall into, as rows with their text and tokens, made when one is taken."""

    rows: Rows
    features: TokenFeatures
    tokenizer: Any

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        ids = self.features[index]["input_ids"]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return {**self.rows[int(self.features.rows[index])], "text": text, "input_ids": ids}


class NextToken:
    """Predicts each token of a batch that is a target (`labels` [batch, sequence]) from those before it."""

    traits: ClassVar[tuple[str, ...]] = ()
    before_forward: Callable[[Batch], None] | None = None  # is shown each batch: inputs alone hide the labels

    def forward(self, network: nn.Module, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        if self.before_forward is not None:
            self.before_forward(batch)
        inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "rows")}
        wanted = self.wanted(batch)
        kept = positions_to_keep(network, wanted)
        if kept is not None:
            inputs["logits_to_keep"] = kept
        return self.outputs(at_wanted(network(**inputs, use_cache=False).logits, wanted, kept), wanted, batch, past)

    def outputs(self, logits: torch.Tensor, wanted: torch.Tensor, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        """Return logits [n_wanted, vocabulary] beside the targets that they are for. wanted: as `wanted` returns it."""
        owners, places = wanted.nonzero(as_tuple=True)
        targets = batch["labels"][owners, places + 1]
        if "rows" in batch:  # several rows in a sequence
            owners, order = batch["rows"][owners, places].sort(stable=True)
            logits, targets = logits[order], targets[order]
        return Outputs(logits, targets, owners, [logits] if past else [])

    def wanted(self, batch: Batch) -> torch.Tensor:
        """Return the positions whose next token is a target: bool [batch, sequence]."""
        return F.pad(batch["labels"][:, 1:] != IGNORED, (0, 1))

    def n_items(self, batch: Batch) -> int:
        return int(self.items_of_rows(batch).sum())

    def items_of_rows(self, batch: Batch) -> torch.Tensor:
        if "rows" in batch:
            owners = batch["rows"][batch["labels"] != IGNORED]
            return torch.bincount(owners, minlength=int(batch["rows"].max()) + 1)
        return (batch["labels"][:, 1:] != IGNORED).sum(1)


class CausalObjective(NextToken):
    """Next-token prediction: the completion after a prompt, or every token of a text.

    Args:
        max_length: tokens in an example, at most.
        chat: whether prompts and completions are put as turns of a conversation; `messages` always are one.
        stop_ids: tokens that end an answer, beside the tokenizer's own end and that of its chat template.

    Attributes:
        train_on: last or all: which answers of a conversation are targets in training; scores are of the last.
        in_steps: whether a row that has an `explanation` is answered by it, then by `Answer:` and the answer; what
            stands behind that mark counts.
    """

    def __init__(self, tokenizer: Any, max_length: int, *, chat: bool = False, stop_ids: Sequence[int] = ()):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.wraps = chat
        self.format = ChatFormat.of(tokenizer) if tokenizer.chat_template is not None else None
        self.prefix, self.suffix = special_ids(tokenizer)
        self.train_on = "last"
        self.in_steps = False
        ends = {*stop_ids, tokenizer.eos_token_id, self.format.end_id if self.format is not None else None}
        self.stop_ids = sorted(ends - {None})
        self.pad_id = padding_id(tokenizer)
        self._kept: WeakKeyDictionary[Any, dict[tuple[Any, ...], TokenFeatures]] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept of rows: a worker process needs none, and weak references can't be sent."""
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _kept=WeakKeyDictionary())

    def encode(self, rows: Rows, task: Task, told: Callable[[int], None] | None = None) -> TokenFeatures:
        """Turn rows into features. A text that is longer than an example becomes several, one after another.

        Rows of a table, which don't change, are encoded once in their life.

        Args:
            told: is called now and then with the number of rows done since.
        Raises:
            StreamError: if the chat template refuses a row.
        """
        return self._features(rows, task, self.train_on, self.in_steps, told)

    def encode_answers(self, rows: Rows, task: Task) -> TokenFeatures:
        """Turn rows into features to score: of a conversation the last answer alone is a target."""
        return self._features(rows, task, "last", False)

    def in_examples(self, task: Task) -> Task:
        """Return the task with a training row for each example: those of long texts carry their tokens, `input_ids`."""
        if task.kind != "text":
            return task
        features = self.encode(task.train, task)
        if len(features) <= len(task.train):
            return task
        return replace(task, train=TextExamples(task.train, features, self.tokenizer))

    def lengths(self, rows: Rows, task: Task) -> list[tuple[int, int]]:
        """Return how many tokens the prompt and the completion of each row have, before anything is cut."""
        return list(map(tuple, self._features(rows, task, "last", self.in_steps).sizes.tolist()))

    def answer_ids(self, rows: Rows, task: Task) -> list[list[int]]:
        """Return the tokens of each row's answer, up to the one that ends it."""
        encoded = (
            (ids, spans) for chunk in self._encoded(rows, task, "last", self.in_steps) for _, ids, spans in chunk
        )
        answers = [[token for start, end in spans for token in ids[start:end]] for ids, spans in encoded]
        return [answer[: self.end_of(answer)] for answer in answers]

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
        return self.final_answer(self.answer_of(self._ids([self.prompt_and_completion(row)[1]])[0]))

    def answer_of(self, ids: Sequence[int]) -> str:
        """Return the text of an answer up to its end, without what a chat template writes around it."""
        kept = [token for token in ids[: self.end_of(ids)] if token != self.pad_id]
        text = self.tokenizer.decode(kept).strip()
        return self.format.answer_of(text) if self.format is not None else text

    def final_answer(self, text: str) -> str:
        """Return the part of an answer that counts: with steps what stands behind them."""
        return final_answer(text) if self.in_steps else text

    def answer_room(self, task: Task) -> int:
        """Return how many tokens an answer may have: as the task says, or else a quarter more than its longest.

        With steps it is the larger of the two, for the task may speak of the answer alone.
        """
        in_steps = self.in_steps and any(row.get("explanation") for row in task.evaluation)
        if task.max_new_tokens is not None and not in_steps:
            return task.max_new_tokens
        longest = max((n for _, n in self.lengths(task.evaluation, task)), default=0)  # its end with it
        return min(max(LEAST_ROOM, task.max_new_tokens or 0, longest + longest // 4), self.max_length - 1)

    def take(self, features: Features, indices: list[int]) -> list[dict[str, Any]]:
        if isinstance(features, TokenFeatures):
            return features.take(indices)
        return [features[i] for i in indices]

    def collate(self, picked: list[dict[str, Any]]) -> Batch:
        lengths = np.array([len(feature["input_ids"]) for feature in picked])
        batch = {
            "input_ids": padded([feature["input_ids"] for feature in picked], self.pad_id),
            "labels": padded([feature["labels"] for feature in picked], IGNORED),
        }
        if lengths.min() < lengths.max():
            mask = np.arange(lengths.max()) < lengths[:, None]
            batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
        return batch

    def end_of(self, ids: Sequence[int]) -> int:
        """Return the place of the first token that ends an answer, its length where there is none."""
        return next((place for place, token in enumerate(ids) if token in self.stop_ids), len(ids))

    def _ids(self, texts: list[str]) -> list[list[int]]:
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        return self.tokenizer(texts, **options)["input_ids"] if texts else []

    @cached_property
    def _id_type(self) -> type[np.integer]:
        return id_type(self.tokenizer)

    def _features(
        self, rows: Rows, task: Task, train_on: str, in_steps: bool, told: Callable[[int], None] | None = None
    ) -> TokenFeatures:
        key = (train_on, in_steps, task.kind, self.wraps, self.max_length)
        kept = self._kept.setdefault(rows, {}) if isinstance(rows, datasets.Dataset | NestedRows) else {}
        if key not in kept:
            writer = TokenWriter(self._id_type)
            for chunk in self._encoded(rows, task, train_on, in_steps):
                sizes = [
                    (len(ids) - (end - start), end - start) for _, ids, spans in chunk for start, end in spans[-1:]
                ]
                writer.add([(row, *self._fitted(ids, spans)) for row, ids, spans in chunk], sizes)
                if told is not None:
                    told(chunk[-1][0] - chunk[0][0] + 1)
            kept[key] = writer.close()
        elif told is not None:
            told(len(rows))
        return kept[key]

    def _encoded(self, rows: Rows, task: Task, train_on: str, in_steps: bool) -> Iterator[list[Encoded]]:
        """Yield the encoded rows of one chunk after another; a long text comes in several pieces."""
        for number, chunk in enumerate(in_chunks(rows, CHUNK)):
            chunk = [with_steps(row) for row in chunk] if in_steps else chunk
            placed = list(enumerate(chunk, start=number * CHUNK))
            if task.kind == "text":
                yield list(self._texts(placed))
            else:
                chats, plain = (
                    [(place, row) for place, row in placed if self.is_chat(row) == wanted] for wanted in (True, False)
                )
                yield sorted([*self._conversations(chats, task, train_on), *self._pairs(plain)], key=itemgetter(0))

    def _pairs(self, placed: list[tuple[int, Row]]) -> Iterator[Encoded]:
        prompts, completions = (self._ids([row[name] for _, row in placed]) for name in ("prompt", "completion"))
        for (place, _), prompt, completion in zip(placed, prompts, completions, strict=True):
            ids = self.prefix + prompt + self._ended(completion)
            yield place, ids, [(len(self.prefix) + len(prompt), len(ids))]

    def _texts(self, placed: list[tuple[int, Row]]) -> Iterator[Encoded]:
        others = iter(self._ids([row["text"] for _, row in placed if "input_ids" not in row]))
        for place, row in placed:
            for piece in [row["input_ids"]] if "input_ids" in row else self._pieces(next(others)):
                yield place, list(piece), [(row.get("n_asked", 0), len(piece))]  # what was asked is no target

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

    def _conversations(self, placed: list[tuple[int, Row]], task: Task, train_on: str) -> list[Encoded]:
        texts = []
        for place, row in placed:
            with self._naming(task, place, row) as chat:
                texts.append(chat.texts(as_messages(row), row.get("tools")))
        encoded = []
        for (place, row), told in zip(placed, self.format.encode(texts) if texts else (), strict=True):
            spans = [(told.n_asked, len(told.ids))]
            if train_on == "all":
                with self._naming(task, place, row) as chat:
                    spans = [*chat.earlier_spans(as_messages(row), row.get("tools"), told), *spans]
            encoded.append((place, told.ids, spans))
        return encoded

    @contextmanager
    def _naming(self, task: Task, place: int, row: Row) -> Iterator[ChatFormat]:
        """Give the chat format; say which row it refuses."""
        where = f"task {task.name!r}, row {place + 1}"
        try:
            yield self._format(row, where)
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

    def _fitted(self, ids: list[int], spans: list[Span]) -> tuple[list[int], list[Span]]:
        """Return an example of at most `max_length` tokens: too long, it loses the prompt's start, then its own end."""
        if len(ids) <= self.max_length:
            return ids, spans
        first = spans[0][0]
        n_prompt = max(self.max_length - (len(ids) - first), min(first, len(self.prefix) + 1))
        kept = [*self._cut(ids[:first], n_prompt), *ids[first:]][: self.max_length]
        moved = ((start - first + n_prompt, min(end - first + n_prompt, self.max_length)) for start, end in spans)
        return kept, [(start, end) for start, end in moved if start < end]

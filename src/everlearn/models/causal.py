"""Next-token prediction: from prompts, conversations or running text to a loss at the positions with a target."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ConfigError, StreamError, describe
from everlearn.models.chat import NO_TEMPLATE, ChatFormat, TemplateRefusal, as_messages
from everlearn.models.objectives import Batch, Features, padded
from everlearn.models.positions import at_wanted, positions_to_keep
from everlearn.models.special import padding_id, special_ids
from everlearn.types import IGNORED, Outputs, Row, Rows, Task

LEAST_ROOM = 32  # tokens that an answer may always have
TEXT_TOKENS = 1024  # in an example of running text, at most


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
            "input_ids": padded([feature["input_ids"] for feature in picked], self.pad_id),
            "labels": padded([feature["labels"] for feature in picked], IGNORED),
        }
        if min(lengths) < max(lengths):
            batch["attention_mask"] = padded([[1] * length for length in lengths], 0)
        return batch

    def forward(self, network: nn.Module, batch: Batch, past: Sequence[str] = ()) -> Outputs:
        if self.before_forward is not None:
            self.before_forward(batch)
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        wanted = self.wanted(batch)
        kept = positions_to_keep(network, wanted)
        if kept is not None:
            inputs["logits_to_keep"] = kept
        logits = at_wanted(network(**inputs, use_cache=False).logits, wanted, kept)
        owners, places = wanted.nonzero(as_tuple=True)
        return Outputs(logits, batch["labels"][owners, places + 1], owners, [logits] if past else [])

    def wanted(self, batch: Batch) -> torch.Tensor:
        """Return the positions whose next token is a target: bool [batch, sequence]."""
        return F.pad(batch["labels"][:, 1:] != IGNORED, (0, 1))

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

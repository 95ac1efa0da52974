"""Conversations as tokens: the ids that the tokenizer's own chat template gives, cut where the assistant answers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from everlearn.errors import ConfigError, check_choice, describe
from everlearn.types import Row

CHAT = ("auto", "always", "never")  # whether prompt/completion rows become turns
TRAIN_ON = ("last", "all")  # answers of a conversation
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_MARK = re.compile(r"<\|[^<>|\s]+\|>|<(?:start|end)_of_turn>")
_THOUGHT_ENDS = "</think>"
_MOST_TAILS = 100  # ends of prompts whose ids are kept
_PROBE = "xyzzy"  # a content that no template writes by itself

Message = Mapping[str, Any]


class TemplateRefusal(Exception):
    """The chat template can't write a conversation; the message is the reason. Who encodes rows says which row."""


@dataclass(frozen=True)
class ChatFormat:
    """How one tokenizer's chat template writes a turn of the assistant, between its other turns.

    Attributes:
        end_id: the token that ends the assistant's turn, None where the template writes none.
        before, after: what the template writes around an answer's text, such as an empty thinking part, and what
            follows the text where no token ends the turn.
    """

    tokenizer: Any
    end_id: int | None = None
    before: str = ""
    after: str = ""

    @classmethod
    def of(cls, tokenizer: Any) -> "ChatFormat":
        """Return the format of a tokenizer that has a chat template, found by an answer written with it."""
        plain = cls(tokenizer)
        try:
            _, answer = plain.texts([{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}])
        except TemplateRefusal:
            return plain  # it wants other turns: the rows will tell whether it writes theirs
        before, found, after = answer.rpartition(_PROBE)
        ids = tokenizer(after, add_special_tokens=False)["input_ids"] if found else []
        marks = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        end_id = next((token for token in ids if token in marks), None)
        return cls(tokenizer, end_id, before.strip(), "" if end_id is not None else after.strip())

    def render(self, messages: Sequence[Message], tools: Any = None, *, asks: bool = False) -> str:
        """Return a conversation as the template writes it; with `asks` up to where the assistant's answer begins.

        Raises:
            TemplateRefusal: with the template's own reason.
        """
        try:
            return self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], tools=tools or None, tokenize=False, add_generation_prompt=asks
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise TemplateRefusal(str(error).strip() or type(error).__name__) from error

    def texts(self, messages: Sequence[Message], tools: Any = None) -> tuple[str, str]:
        """Return what the model is asked, and what it is to write: the last message and what ends its turn.

        A template that writes the conversation before the answer in another way once the answer is there (it drops
        earlier thoughts, say) is followed where the model is asked, for so it will be served.

        Raises:
            TemplateRefusal: if the template refuses the messages, or the last one's text is not found in what it wrote.
        """
        prompt, whole = self.render(messages[:-1], tools, asks=True), self.render(messages, tools)
        if whole.startswith(prompt):
            return prompt, whole[len(prompt) :]
        content = _text_of(messages[-1]).strip()
        place = whole.rfind(content) if content else -1
        if place < 0:
            raise TemplateRefusal("the answer can't be found in what it writes, so it can't be told from the prompt")
        return prompt, whole[place:]

    def encode(self, texts: Sequence[tuple[str, str]]) -> list["Told"]:
        """Return the ids of conversations, given as `texts` returns them: what is asked, and what is to be written.

        The ids are those of `apply_chat_template(messages)`; where the prompt that is served is no beginning of them,
        those of that prompt and of the answer after it.

        Cost: each conversation goes through a fast tokenizer once, and so do the few distinct words that stand between
        the last mark of a prompt and the answer; without marks, or with a slow tokenizer, its prompt once more.
        """
        wholes = [prompt + answer for prompt, answer in texts]
        encoded = self.tokenizer(wholes, add_special_tokens=False, return_attention_mask=False, verbose=False)
        encodings = encoded.encodings or [None] * len(wholes)
        found = []
        for (prompt, answer), ids, encoding in zip(texts, encoded["input_ids"], encodings, strict=True):
            n_asked = self._n_asked(prompt, ids, encoding)
            if n_asked is None:
                asked, encoding = self.ids(prompt), None
                ids, n_asked = asked + self.ids(answer), len(asked)
            eos = self.tokenizer.eos_token_id
            if self.end_id is None and eos is not None and ids[-1] != eos:
                ids = [*ids, eos]  # else nothing would teach when to stop
            found.append(Told(prompt + answer, ids, n_asked, encoding))
        return found

    def earlier_spans(self, messages: Sequence[Message], tools: Any, told: "Told") -> list[tuple[int, int]]:
        """Return where the assistant's turns before the last one stand in the ids.

        Raises:
            TemplateRefusal: if the template refuses the messages, or writes earlier turns in another way once there are
                later ones.
        """
        turns = range(1, len(messages) - 1)
        return [self._span(messages, tools, turn, told) for turn in turns if messages[turn]["role"] == "assistant"]

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text that the template wrote: its special tokens stand in it already."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def answer_of(self, text: str) -> str:
        """Return an answer without what the template writes around it, and without thoughts before it."""
        text = text.strip()
        if _THOUGHT_ENDS in self.before and _THOUGHT_ENDS in text:
            text = text.partition(_THOUGHT_ENDS)[2].strip()
        elif self.before:
            text = text.removeprefix(self.before).strip()
        return text.removesuffix(self.after).strip() if self.after else text

    def _span(self, messages: Sequence[Message], tools: Any, turn: int, told: "Told") -> tuple[int, int]:
        """Return where the ids of an earlier turn of the assistant begin and end."""
        asked = self._n_asked_of(self.render(messages[:turn], tools, asks=True), told)
        if asked is not None:
            if self.end_id is not None and self.end_id in told.ids[asked:]:
                return asked, told.ids.index(self.end_id, asked) + 1
            answered = self._n_asked_of(self.render(messages[: turn + 1], tools), told)
            if answered is not None:
                return asked, answered
        raise TemplateRefusal(
            f"it writes message {turn + 1} otherwise than it did when that was the answer; train on the last answers "
            "only, learner.train_on: last"
        )

    def _n_asked_of(self, prompt: str, told: "Told") -> int | None:
        return self._n_asked(prompt, told.ids, told.encoding if told.text.startswith(prompt) else None)

    def _n_asked(self, prompt: str, ids: list[int], encoding: Any) -> int | None:
        """Return how many ids of a conversation are those of a prompt, None if it doesn't begin with the prompt's.

        A mark parts a text: what stands before it has the same ids whatever follows. So of a prompt only what it has
        from its last mark on is encoded anew, mostly the same words in all rows.

        Args:
            encoding: of the whole text, which begins with the prompt's; None where it isn't known.
        """
        mark = None if encoding is None else self._last_mark(prompt, ids, encoding)
        if mark is not None:
            place, start = mark
            tail = self._tail(prompt[start:])
            if ids[place : place + len(tail)] == tail:
                return place + len(tail)
        asked = self.ids(prompt)
        return len(asked) if ids[: len(asked)] == asked else None

    def _last_mark(self, prompt: str, ids: list[int], encoding: Any) -> tuple[int, int] | None:
        """Return the place of a prompt's last mark among the ids, and where its characters begin; None without one."""
        characters = range(len(prompt) - 1, -1, -1)
        last = next((at for at in map(encoding.char_to_token, characters) if at is not None), -1)
        for place in range(last, -1, -1):
            if ids[place] in self._marks:
                start, end = encoding.token_to_chars(place)
                return (place, start) if end <= len(prompt) else None
        return None

    def _tail(self, text: str) -> list[int]:
        if text not in self._tails:
            if len(self._tails) >= _MOST_TAILS:
                self._tails.clear()
            self._tails[text] = self.ids(text)
        return self._tails[text]

    @cached_property
    def _marks(self) -> frozenset[int]:
        """The ids that are found in a text before anything else is done to it."""
        return frozenset(token for token, mark in self.tokenizer.added_tokens_decoder.items() if not mark.normalized)

    @cached_property
    def _tails(self) -> dict[str, list[int]]:
        return {}


@dataclass(frozen=True, eq=False)
class Told:
    """A conversation as tokens.

    n_asked: how many of the ids are what the model is asked; the rest is its answer. encoding: the tokenizer's own,
    which knows the characters of each token, None where the ids were put together of two texts.
    """

    text: str
    ids: list[int]
    n_asked: int
    encoding: Any


def as_messages(row: Row) -> list[Message]:
    """Return a row's conversation: its messages, or its prompt as a user's turn and its completion as the assistant's.

    The space or line break that joins a completion to its prompt is no part of a turn.
    """
    if row.get("messages") is not None:
        return list(row["messages"])
    answer = row["completion"]
    answer = answer[1:] if answer[:1] in (" ", "\n") else answer
    return [{"role": "user", "content": row["prompt"].rstrip()}, {"role": "assistant", "content": answer.rstrip()}]


def wraps(chat: str, tokenizer: Any) -> bool:
    """Return whether prompts and completions become turns: `always`, `never`, or `auto`, if there is a template.

    Raises:
        ConfigError: if they are to, and there is none.
    """
    check_choice("model.chat", chat, CHAT)
    has_template = tokenizer.chat_template is not None
    if chat == "always" and not has_template:
        raise ConfigError(describe("model.chat", "the tokenizer has no chat template", chat, NO_TEMPLATE))
    return chat == "always" or (chat == "auto" and has_template)


NO_TEMPLATE = (
    "Use prompt/completion columns, a model whose tokenizer has a chat template, or give it one: "
    "model.chat_template: chatml, or a file"
)


def give_template(tokenizer: Any, name: str) -> list[str]:
    """Give a tokenizer a chat template; return its marks (`<|im_end|>` ...) that became new tokens.

    Args:
        name: chatml, the path of a Jinja template, or the template itself.

    Raises:
        ConfigError: if the file can't be read or is no template.
    """
    tokenizer.chat_template = template = template_text(name)
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
    try:
        written = ChatFormat(tokenizer).render(turns)
    except TemplateRefusal as error:
        way_out = "Mend the template: a user's turn and the assistant's must come out"
        raise ConfigError(describe("model.chat_template", f"can't be used ({error})", name, way_out)) from error
    if _PROBE not in written:
        way_out = "Write the messages' contents: {% for message in messages %}{{ message['content'] }}{% endfor %}"
        raise ConfigError(describe("model.chat_template", "leaves the messages out", name, way_out))
    known = tokenizer.get_vocab()
    marks = list(dict.fromkeys(_MARK.findall(template)))
    new = [mark for mark in marks if mark not in known]
    tokenizer.add_tokens(marks, special_tokens=True)
    return new


def template_text(name: str) -> str:
    """Return the template that `give_template` takes by this name.

    Raises:
        ConfigError: if the file can't be read.
    """
    if name == "chatml" or "{" in name:
        return CHATML if name == "chatml" else name
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        way_out = "Write chatml, or the path of a Jinja template"
        raise ConfigError(describe("model.chat_template", f"can't be read ({error})", name, way_out)) from error


def _text_of(message: Message) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

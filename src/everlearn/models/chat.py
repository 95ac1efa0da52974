"""Conversations as tokens: the ids that the tokenizer's own chat template gives, cut where the assistant answers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    def encode(self, messages: Sequence[Message], tools: Any, train_on: str) -> tuple[list[int], list[bool]]:
        """Return the ids of a conversation, and which of them the assistant is to write.

        The ids are those of `apply_chat_template(messages)`; where the prompt that is served is no beginning of them,
        those of that prompt and of the answer after it.

        Raises:
            TemplateRefusal: if the template refuses the messages, or with `all` writes earlier turns in another way
                once there are later ones.
        """
        prompt, answer = self.texts(messages, tools)
        asked = self.ids(prompt)
        ids = self.ids(prompt + answer)
        if ids[: len(asked)] != asked:
            ids = asked + self.ids(answer)
        if self.end_id is None and self.tokenizer.eos_token_id is not None and ids[-1] != self.tokenizer.eos_token_id:
            ids = [*ids, self.tokenizer.eos_token_id]  # else nothing would teach when to stop
        written = [place >= len(asked) for place in range(len(ids))]
        for turn in range(1, len(messages) - 1) if train_on == "all" else ():
            if messages[turn]["role"] == "assistant":
                start, end = self._span(messages, tools, turn, ids)
                written[start:end] = [True] * (end - start)
        return ids, written

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

    def _span(self, messages: Sequence[Message], tools: Any, turn: int, ids: list[int]) -> tuple[int, int]:
        """Return where the ids of an earlier turn of the assistant begin and end."""
        asked = self.ids(self.render(messages[:turn], tools, asks=True))
        if ids[: len(asked)] == asked:
            if self.end_id is not None and self.end_id in ids[len(asked) :]:
                return len(asked), ids.index(self.end_id, len(asked)) + 1
            answered = self.ids(self.render(messages[: turn + 1], tools))
            if ids[: len(answered)] == answered:
                return len(asked), len(answered)
        raise TemplateRefusal(
            f"it writes message {turn + 1} otherwise than it did when that was the answer; train on the last answers "
            "only, learner.train_on: last"
        )


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

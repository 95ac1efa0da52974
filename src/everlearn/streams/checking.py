"""What a row must look like: the kind of a file's rows, the check of one row, and the content that names it."""

import hashlib
import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from everlearn.streams.labels import BadRow, LabelBook
from everlearn.streams.values import storable
from everlearn.types import IGNORED, Kind, Row

# shape -> the columns that every row must have; `messages` stands for `prompt` and `completion`, and so do these two
# where they are lists of messages themselves: a conversation
REQUIRED: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversation": ("prompt", "completion"),
    "prompt": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
    "tag": ("tokens", "tags"),
    "classify": ("text", "label"),
    "multilabel": ("text", "labels"),
    "score": ("text", "score"),
    "text": ("text",),
}
COLUMNS = (
    "prompt", "completion", "chosen", "rejected", "messages", "tools", "choices",
    "text", "text_pair", "label", "label_name", "labels", "score", "tokens", "tags",
)  # fmt: skip
_CHAT_SHAPES = ("messages", "conversation")
# how the user says which of a row's two forms counts
CHOOSE = "write columns: {messages: messages}, or {prompt: prompt, completion: completion}"


@dataclass(frozen=True)
class Rules:
    """How the rows of one source are read. `shape` is a key of `REQUIRED`; `columns` maps our name to the file's.

    `extra_columns` are taken over as JSON holds them, None where a row has none, and `changes` tells which were changed
    for it; `notes` where a row has them, checked. `untyped` and `padded` are those of the source.
    """

    shape: str
    book: LabelBook
    columns: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    extra_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # of `NOTES`
    untyped: bool = False
    padded: bool = False
    changes: dict[str, set[str]] = field(default_factory=dict)


def shape_of(columns: Iterable[str]) -> str | None:
    """Return the shape of rows that have these columns, by the ecosystem's conventions; None if there is none."""
    present = set(columns)
    fitting = (shape for shape, required in REQUIRED.items() if present.issuperset(required))
    return next((shape for shape in fitting if shape != "conversation"), None)


def kind_of(shape: str) -> Kind:
    """Return the task kind of a shape: rows of messages are prompts too."""
    return "prompt" if shape in _CHAT_SHAPES else shape


def rename(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return `row` with the mapped columns under our names; a file's own column of that name gives way."""
    taken = set(columns.values())
    renamed = {name: value for name, value in row.items() if name not in taken and name not in columns}
    return renamed | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}


def check_row(row: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """Return the row's columns as its kind wants them, labels as numbers of `rules.book`.

    Raises:
        BadRow: with the reason why the row can't be used.
    """
    row = rename(row, rules.columns)
    for name in REQUIRED[rules.shape]:
        if name not in row:
            theirs = rules.columns.get(name)
            raise BadRow(f"column {theirs!r} (for {name!r}) is missing" if theirs else f"column {name!r} is missing")
    extra = {name: storable(row.get(name), name, rules.changes.setdefault(name, set())) for name in rules.extra_columns}
    _check_text(extra, "an extra column")
    notes = {name: NOTES[name](row[name], name) for name in rules.notes if row.get(name) is not None}
    return extra | notes | _CHECKS[rules.shape](row, rules)


def content_of(row: Row) -> str:
    """Return what the row asks, its answer aside: two rows with the same content are the same item.

    Nothing is the same but composed and decomposed Unicode, kinds of line ends, and white space at a text's end.
    """
    return "\x1f".join(_exact(part) for part in [*_asked(row), *_beside_texts(row)])


def loose_content_of(row: Row) -> str:
    """Return what rows that ask nearly the same share: case, runs of white space and Unicode compatibility forms make
    no difference, nor does what a chat row has beside the texts of its messages."""  # fmt: skip
    return "\x1f".join(" ".join(unicodedata.normalize("NFKC", part).casefold().split()) for part in _asked(row))


def digest_of(row: Row) -> bytes:
    """Return 16 bytes that are equal for rows of equal content."""
    return hashlib.blake2b(content_of(row).encode(), digest_size=16).digest()


def loose_digest_of(row: Row) -> bytes:
    """Return 16 bytes that are equal for rows of equal loose content.

    Which rows a split holds out depends on them, so that near duplicates stay together. They must never change: a file
    would be split anew, and homes hold those of the rows that their older versions were trained on.
    """
    return hashlib.blake2b(loose_content_of(row).encode(), digest_size=16).digest()


def answer_of(row: Row) -> Any:
    """Return a row's answer: a text, a label, labels in order, a number, tags, which text is chosen and
    which rejected, or None for running text."""
    if row.get("messages") is not None:
        return text_of(row["messages"][-1]["content"]).strip()
    if "completion" in row:
        return row["completion"].strip()
    if "chosen" in row:
        return [row["chosen"].strip(), row["rejected"].strip()]
    if "labels" in row:
        return sorted(row["labels"])
    return next((row[name] for name in ("label", "score", "tags") if name in row), None)


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """Return the text of a message's content: a text, a list of parts that are texts, or nothing."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""


def _asked(row: Row) -> list[str]:
    if row.get("messages") is not None:
        return [part for message in row["messages"][:-1] for part in (message["role"], text_of(message.get("content")))]
    if isinstance(row.get("prompt"), list | tuple):
        return [part for message in row["prompt"] for part in (message["role"], text_of(message.get("content")))]
    if "prompt" in row:
        return [row["prompt"]]
    if "tokens" in row:
        return row["tokens"]
    return [row["text"], row.get("text_pair") or ""]


def _beside_texts(row: Row) -> list[str]:
    """Return what a chat row asks beside the texts of its messages: calls, names, tools, as JSON."""
    if row.get("messages") is None:
        return []
    others = [{k: v for k, v in one.items() if k not in ("role", "content")} for one in row["messages"][:-1]]
    if not any(others) and not row.get("tools"):
        return []
    return [json.dumps([others, row.get("tools")], sort_keys=True, ensure_ascii=False)]


def _exact(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").rstrip()


def _prompt(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    if row.get("messages") is not None and "prompt" not in rules.columns:
        raise BadRow(f"has both prompt and messages: {CHOOSE}")
    completion = _text(row["completion"], "completion")
    return {"prompt": _text(row["prompt"], "prompt"), "completion": completion, **_choices(row, rules, completion)}


def _preference(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    prompt = row["prompt"]
    if isinstance(prompt, list | tuple):
        prompt = _without_nulls(list(prompt)) if rules.padded else list(prompt)
        if not prompt:
            raise BadRow("prompt is empty")
        for position, message in enumerate(prompt):
            _check_message(message, f"prompt[{position}]")
        _check_text(prompt, "a message")
    else:
        prompt = _text(prompt, "prompt")
    chosen, rejected = (_preferred(row[name], name) for name in ("chosen", "rejected"))
    if chosen.strip() == rejected.strip():
        raise BadRow("chosen and rejected are the same text")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _preferred(value: object, name: str) -> str:
    """Return an answer's text: it may come as the assistant's message."""
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise BadRow(f"{name} has {len(value)} messages, not the assistant's answer alone")
        _check_message(value[0], f"{name}[0]")
        value = text_of(value[0]["content"])
    return _text(value, name)


def _messages(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    if row.get("prompt") is not None and "messages" not in rules.columns:
        raise BadRow(f"has both prompt and messages: {CHOOSE}")
    return _chat(_list(row["messages"], "messages", rules), row, rules)


def _conversation(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    prompt, completion = (_list(row[name], name, rules) for name in ("prompt", "completion"))
    return _chat([*prompt, *completion], row, rules)


def _chat(messages: list[Any], row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    tools = _tools(row)
    if rules.padded:
        messages, tools = _without_nulls(messages), _without_nulls(tools)
    for position, message in enumerate(messages):
        _check_message(message, f"messages[{position}]")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise BadRow("messages must be at least two and end with the assistant's")
    answer = _text(text_of(messages[-1].get("content")), f"messages[{len(messages) - 1}].content")
    _check_text([messages, tools], "a message or tool")
    return {"messages": messages, "tools": tools, **_choices(row, rules, answer)}


def _check_text(value: Any, name: str) -> None:
    """Check that nested values can be written as JSON in UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"{name} holds half of a surrogate pair") from error
    except (TypeError, ValueError) as error:
        raise BadRow(f"{name} holds what JSON can't ({error})") from error


def _check_message(message: Any, where: str) -> None:
    calls = isinstance(message, Mapping) and message.get("role") == "assistant" and bool(message.get("tool_calls"))
    if not isinstance(message, Mapping) or not {"role", "content"} - ({"content"} if calls else set()) <= set(message):
        raise BadRow(f"{where} is no object with 'role' and 'content'")
    _text(message["role"], f"{where}.role")
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise BadRow(f"{where}.content has a part that is no text: only texts can be learned")
        content = text_of(content)
    if not (content is None and calls) and not (content == "" and (calls or message["role"] == "tool")):
        _text(content, f"{where}.content")


def _without_nulls(value: Any) -> Any:
    """Return nested objects without their null values: Arrow writes them for the keys that an object hasn't."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _tools(row: dict[str, Any]) -> list[Any] | None:
    """Return the tools that a chat row offers, which may be written as JSON text; None where it offers none."""
    tools = row.get("tools") or None
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise BadRow("tools is text, but no JSON") from error
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)):
        raise BadRow(f"tools is {type(tools).__name__}, not a list of objects")
    return tools


def _choices(row: dict[str, Any], rules: Rules, answer: str) -> dict[str, Any]:
    choices = list(rules.choices)
    if row.get("choices") is not None:
        choices = [_text(choice, f"choices[{i}]") for i, choice in enumerate(_list(row["choices"], "choices", rules))]
    if choices and answer not in choices:
        raise BadRow(f"the answer {answer!r} is none of the choices")
    return {"choices": choices or None}


def _classify(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    pair = _pair(row)  # first: the label of a bad row must not enter the book
    name = row.get("label_name")
    label = _label(row["label"], "label", rules)
    if rules.book.marks_none(label):
        why = " (no training row has it)" if rules.book.closed and not rules.book.declared else ""
        raise BadRow(f"label {label} marks a row without a label{why}")
    number = rules.book.number(label, untyped=rules.untyped, name=name if isinstance(name, str) else None)
    return {**pair, "label": number}


def _pair(row: dict[str, Any]) -> dict[str, Any]:
    second = row.get("text_pair")
    absent = second is None or second == ""  # CSV has no null
    return {"text": _text(row["text"], "text"), "text_pair": None if absent else _text(second, "text_pair")}


def _multilabel(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    pair = _pair(row)
    labels = [_label(label, f"labels[{i}]", rules) for i, label in enumerate(_several(row["labels"], "labels", rules))]
    for i, label in enumerate(labels):
        if rules.book.marks_none(label):
            raise BadRow(f"labels[{i}] is {label}, the mark of a row without a label: leave it out")
    numbers = [rules.book.number(label, untyped=rules.untyped) for label in labels]
    return {**pair, "labels": list(dict.fromkeys(numbers))}


def _score(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    return {**_pair(row), "score": _real(row["score"], "score", rules)}


def _real(value: object, name: str, rules: Rules) -> float:
    if rules.untyped and isinstance(value, str):
        try:
            value = float(value)
        except ValueError as error:
            raise BadRow(f"{name} is {value!r}, not a number") from error
    return float(_number(value, name))


def _tag(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    tokens = [_text(token, f"tokens[{i}]") for i, token in enumerate(_list(row["tokens"], "tokens", rules))]
    tags = _list(row["tags"], "tags", rules)
    if len(tokens) != len(tags):
        raise BadRow(f"tokens and tags differ in length: {len(tokens)} and {len(tags)}")
    tags = [_label(tag, f"tags[{i}]", rules) for i, tag in enumerate(tags)]
    ignored = [rules.book.marks_none(tag, anywhere=True) for tag in tags]
    if all(ignored):
        raise BadRow(f"tags are all {' or '.join(map(str, sorted(set(tags))))}, the marks of a token without a tag")
    book, untyped = rules.book, rules.untyped
    return {
        "tokens": tokens,
        "tags": [IGNORED if no else book.number(tag, untyped=untyped) for tag, no in zip(tags, ignored, strict=True)],
    }


def _plain(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    return {"text": _text(row["text"], "text")}


def _present(value: object, name: str) -> None:
    if value is None:
        raise BadRow(f"{name} is null")
    if isinstance(value, float) and math.isnan(value):
        raise BadRow(f"{name} is NaN")


def _text(value: object, name: str) -> str:
    _present(value, name)
    if not isinstance(value, str):
        raise BadRow(f"{name} is {type(value).__name__}, not text")
    if not value.strip():
        raise BadRow(f"{name} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"{name} holds half of a surrogate pair at position {error.start}") from error
    return value


def _number(value: object, name: str) -> float:
    _present(value, name)
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise BadRow(f"{name} is {type(value).__name__} ({value!r}), not a number")
    return value


def _list(value: object, name: str, rules: Rules) -> list[Any]:
    found = _several(value, name, rules)
    if not found:
        raise BadRow(f"{name} is empty")
    return found


def _several(value: object, name: str, rules: Rules) -> list[Any]:
    """Return a list, maybe an empty one."""
    _present(value, name)
    if rules.untyped and isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadRow(f"{name} is no JSON list") from error
    if not isinstance(value, list | tuple):
        raise BadRow(f"{name} is {type(value).__name__}, not a list")
    return list(value)


def _label(value: object, name: str, rules: Rules) -> str | int:
    _present(value, name)
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    # pandas turns a column of integers with a gap into floats
    if isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer():
        return int(value)
    raise BadRow(f"{name} is {type(value).__name__} ({value!r}), neither a name nor a whole number")


_CHECKS: dict[str, Callable[[dict[str, Any], Rules], dict[str, Any]]] = {
    "messages": _messages,
    "conversation": _conversation,
    "prompt": _prompt,
    "preference": _preference,
    "tag": _tag,
    "classify": _classify,
    "multilabel": _multilabel,
    "score": _score,
    "text": _plain,
}

# what a row may say of its problem beside question and answer
NOTES: dict[str, Callable[[object, str], Any]] = {
    "type": _text,
    "difficulty": _number,
    "content": _text,
    "explanation": _text,
}

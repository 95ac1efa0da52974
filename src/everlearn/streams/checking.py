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
from everlearn.types import Kind

# kind -> the columns that every row must have; `messages` stands for `prompt` and `completion`
REQUIRED: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt": ("prompt", "completion"),
    "tag": ("tokens", "tags"),
    "classify": ("text", "label"),
    "text": ("text",),
}
COLUMNS = ("prompt", "completion", "messages", "choices", "text", "text_pair", "label", "label_name", "tokens", "tags")


@dataclass(frozen=True)
class Rules:
    """How the rows of one source are read. `shape` is a key of `REQUIRED`; `columns` maps our name to the file's.

    `extra_columns` are taken over as JSON holds them, None where a row has none, and `changes` tells which were changed
    for it; `notes` where a row has them, checked.
    """

    shape: str
    book: LabelBook
    columns: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    extra_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # of `NOTES`
    untyped: bool = False
    changes: dict[str, set[str]] = field(default_factory=dict)


def shape_of(columns: Iterable[str]) -> str | None:
    """Return the shape of rows that have these columns, by the ecosystem's conventions; None if there is none."""
    present = set(columns)
    return next((shape for shape, required in REQUIRED.items() if present.issuperset(required)), None)


def kind_of(shape: str) -> Kind:
    """Return the task kind of a shape: rows of `messages` are prompts too."""
    return "prompt" if shape == "messages" else shape


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
    notes = {name: NOTES[name](row[name], name) for name in rules.notes if row.get(name) is not None}
    return extra | notes | _CHECKS[rules.shape](row, rules)


def content_of(row: Mapping[str, Any]) -> str:
    """Return what the row asks, its answer aside: two rows with the same content are the same item.

    Case, runs of white space and Unicode compatibility forms make no difference.
    """
    if row.get("messages") is not None:
        parts = [part for message in row["messages"][:-1] for part in (message["role"], message["content"])]
    elif "prompt" in row:
        parts = [row["prompt"]]
    elif "tokens" in row:
        parts = row["tokens"]
    else:
        parts = [row["text"], row.get("text_pair") or ""]
    return "\x1f".join(" ".join(unicodedata.normalize("NFKC", part).casefold().split()) for part in parts)


def digest_of(row: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that are equal for rows of equal content."""
    return hashlib.blake2b(content_of(row).encode(), digest_size=16).digest()


def _prompt(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    completion = _text(row["completion"], "completion")
    return {"prompt": _text(row["prompt"], "prompt"), "completion": completion, **_choices(row, rules, completion)}


def _messages(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    messages = _list(row["messages"], "messages", rules)
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise BadRow(f"{where} is no object with 'role' and 'content'")
        _text(message["role"], f"{where}.role")
        _text(message["content"], f"{where}.content")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise BadRow("messages must be at least two and end with the assistant's")
    return {"messages": messages, **_choices(row, rules, messages[-1]["content"])}


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
    number = rules.book.number(label, untyped=rules.untyped, name=name if isinstance(name, str) else None)
    return {**pair, "label": number}


def _pair(row: dict[str, Any]) -> dict[str, Any]:
    second = row.get("text_pair")
    absent = second is None or second == ""  # CSV has no null
    return {"text": _text(row["text"], "text"), "text_pair": None if absent else _text(second, "text_pair")}


def _tag(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    tokens = [_text(token, f"tokens[{i}]") for i, token in enumerate(_list(row["tokens"], "tokens", rules))]
    tags = _list(row["tags"], "tags", rules)
    if len(tokens) != len(tags):
        raise BadRow(f"tokens and tags differ in length: {len(tokens)} and {len(tags)}")
    tags = [_label(tag, f"tags[{i}]", rules) for i, tag in enumerate(tags)]
    return {"tokens": tokens, "tags": [rules.book.number(tag, untyped=rules.untyped) for tag in tags]}


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
    _present(value, name)
    if rules.untyped and isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadRow(f"{name} is no JSON list") from error
    if not isinstance(value, list | tuple):
        raise BadRow(f"{name} is {type(value).__name__}, not a list")
    if not value:
        raise BadRow(f"{name} is empty")
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
    "prompt": _prompt,
    "tag": _tag,
    "classify": _classify,
    "text": _plain,
}

# what a row may say of its problem beside question and answer
NOTES: dict[str, Callable[[object, str], Any]] = {"type": _text, "difficulty": _number, "content": _text}

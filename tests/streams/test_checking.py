import json
import math

import pytest

from everlearn.streams.checking import (
    Rules,
    answer_of,
    check_row,
    content_of,
    digest_of,
    kind_of,
    loose_digest_of,
    rename,
    shape_of,
)
from everlearn.streams.labels import BadRow, LabelBook
from everlearn.types import IGNORED

LOOSE = "b447d68a5871d9058806c4cc9b3a7e9b"


def _check(shape, row, **options):
    return check_row(row, Rules(shape, LabelBook(), **options))


@pytest.mark.parametrize(
    ("columns", "shape"),
    [
        (["completion", "prompt", "text"], "prompt"),
        (["messages"], "messages"),
        (["text", "label", "id"], "classify"),
        (["prompt", "chosen", "rejected"], "preference"),
        (["text", "score"], "score"),
        (["text", "label", "score"], "classify"),
        (["text", "labels"], "multilabel"),
        (["tokens", "tags"], "tag"),
        (["text"], "text"),
        (["prompt"], None),
        (["tokens", "label"], None),
    ],
)
def test_columns_tell_the_shape(columns, shape):
    assert shape_of(columns) == shape


def test_numbers_are_real_and_those_of_csv_are_texts():
    assert _check("score", {"text": "a", "score": 3}) == {"text": "a", "text_pair": None, "score": 3.0}
    assert _check("score", {"text": "a", "score": "-1e-3"}, untyped=True)["score"] == -0.001
    for text, reason in (("0,5", "score is '0,5', not a number"), ("nan", "score is NaN"), ("inf", "not a number")):
        with pytest.raises(BadRow, match=reason):
            _check("score", {"text": "a", "score": text}, untyped=True)


def test_preferences_are_texts_beside_a_prompt_or_the_turns_of_a_conversation():
    turns = [{"role": "user", "content": "hi"}]
    row = {"prompt": turns, "chosen": [{"role": "assistant", "content": "yes"}], "rejected": "no"}
    checked = _check("preference", row)
    assert checked == {"prompt": turns, "chosen": "yes", "rejected": "no"}
    assert answer_of(checked) == ["yes", "no"]
    assert content_of(checked) != content_of({**checked, "prompt": [{"role": "user", "content": "ho"}]})
    assert digest_of(checked) == digest_of({**checked, "chosen": "no", "rejected": "yes"})


def test_messages_are_prompts():
    assert [kind_of(shape) for shape in ("messages", "prompt", "tag")] == ["prompt", "prompt", "tag"]


def test_columns_are_renamed_and_may_be_swapped():
    assert rename({"a": 1, "b": 2, "c": 3}, {"a": "b", "b": "a"}) == {"a": 2, "b": 1, "c": 3}
    assert rename({"text": 1, "body": 2}, {"text": "body"}) == {"text": 2}


@pytest.mark.parametrize(
    ("shape", "row", "reason"),
    [
        ("text", {}, "column 'text' is missing"),
        ("text", {"text": None}, "text is null"),
        ("text", {"text": " \n"}, "text is empty"),
        ("text", {"text": 3}, "text is int, not text"),
        ("text", {"text": math.nan}, "text is NaN"),
        ("text", {"text": "a\ud800"}, "half of a surrogate pair at position 1"),
        ("prompt", {"prompt": "a"}, "column 'completion' is missing"),
        ("prompt", {"prompt": "a", "completion": ""}, "completion is empty"),
        ("prompt", {"prompt": "a", "completion": "b", "choices": ["c"]}, "the answer 'b' is none of the choices"),
        ("prompt", {"prompt": "a", "completion": "b", "choices": "b"}, "choices is str, not a list"),
        ("classify", {"text": "a", "label": None}, "label is null"),
        ("classify", {"text": "a", "label": math.nan}, "label is NaN"),
        ("classify", {"text": "a", "label": 1.5}, r"label is float \(1.5\), neither"),
        ("classify", {"text": "a", "label": True}, r"label is bool \(True\), neither"),
        ("classify", {"text": "a", "label": ""}, "label is empty"),
        ("classify", {"text": "a", "label": 1, "text_pair": 2}, "text_pair is int, not text"),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": " b"}, "chosen and rejected are the same text"),
        ("preference", {"prompt": [], "chosen": "b", "rejected": "c"}, "prompt is empty"),
        ("preference", {"prompt": [{"role": "user"}], "chosen": "b", "rejected": "c"}, r"prompt\[0\] is no object"),
        ("preference", {"prompt": "a", "chosen": ["b", "c"], "rejected": "c"}, "chosen has 2 messages, not the assist"),
        ("multilabel", {"text": "a", "labels": "x"}, "labels is str, not a list"),
        ("multilabel", {"text": "a", "labels": ["x", None]}, r"labels\[1\] is null"),
        ("multilabel", {"text": "a", "labels": [-100]}, r"labels\[0\] is -100, the mark of a row without a label"),
        ("score", {"text": "a", "score": None}, "score is null"),
        ("score", {"text": "a", "score": math.nan}, "score is NaN"),
        ("score", {"text": "a", "score": math.inf}, r"score is float \(inf\), not a number"),
        ("score", {"text": "a", "score": "0.5"}, r"score is str \('0.5'\), not a number"),
        ("score", {"text": "a", "score": True}, r"score is bool \(True\), not a number"),
        ("tag", {"tokens": ["a", "b"], "tags": ["O"]}, "tokens and tags differ in length: 2 and 1"),
        ("tag", {"tokens": [], "tags": []}, "tokens is empty"),
        ("tag", {"tokens": ["a", ""], "tags": ["O", "O"]}, r"tokens\[1\] is empty"),
        ("tag", {"tokens": ["a"], "tags": [None]}, r"tags\[0\] is null"),
        ("tag", {"tokens": "a", "tags": ["O"]}, "tokens is str, not a list"),
        ("messages", {"messages": [{"role": "user"}]}, r"messages\[0\] is no object with 'role' and 'content'"),
        ("messages", {"messages": [{"role": "user", "content": "a"}] * 2}, "end with the assistant's"),
        ("messages", {"messages": [{"role": "assistant", "content": "a"}]}, "at least two"),
        ("messages", {"messages": [{"role": "user", "content": None}] * 2}, r"messages\[0\]\.content is null"),
        (
            "messages",
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{}]}]},
            r"messages\[1\]\.content is empty",
        ),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "a"}]},
            r"messages\[0\]\.content has a part that is no text",
        ),
        (
            "messages",
            {"messages": [{"role": "user", "content": "a", "x": "\ud800"}, {"role": "assistant", "content": "b"}]},
            "half of a surrogate pair",
        ),
        (
            "messages",
            {"messages": [{"role": "user", "content": "a", "x": {1}}, {"role": "assistant", "content": "b"}]},
            "holds what JSON can't",
        ),
        (
            "messages",
            {"tools": 3, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "tools is int, not a list of objects",
        ),
        ("classify", {"text": "a", "label": -100}, "label -100 marks a row without a label"),
        ("tag", {"tokens": ["a", "b"], "tags": [-1, -100]}, "tags are all -100 or -1"),
    ],
)
def test_a_bad_row_says_why(shape, row, reason):
    with pytest.raises(BadRow, match=reason):
        _check(shape, row)


def test_a_missing_mapped_column_is_named_as_in_the_file():
    with pytest.raises(BadRow, match=r"column 'question' \(for 'prompt'\) is missing"):
        _check("prompt", {"prompt": "a", "completion": "b"}, columns={"prompt": "question"})


def test_half_of_a_surrogate_pair_in_an_extra_column_makes_a_bad_row():
    with pytest.raises(BadRow, match="an extra column holds half of a surrogate pair"):
        _check("text", {"text": "a", "n": [{"x": "\ud800"}]}, extra_columns=("n",))


def test_good_rows_keep_the_columns_of_their_kind():
    assert _check("classify", {"text": "a", "label": 7.0, "id": 1}) == {"text": "a", "text_pair": None, "label": 0}
    assert _check("classify", {"text": "a", "label": "x", "text_pair": ""})["text_pair"] is None
    row = _check("prompt", {"prompt": "a", "completion": "b", "n": 3}, choices=("b", "c"), extra_columns=("n", "m"))
    assert row == {"n": 3, "m": None, "prompt": "a", "completion": "b", "choices": ["b", "c"]}


def test_lists_in_csv_cells_are_json():
    row = {"tokens": '["a", "b"]', "tags": "[1, 0]"}
    assert _check("tag", row, untyped=True) == {"tokens": ["a", "b"], "tags": [0, 1]}
    with pytest.raises(BadRow, match="tokens is no JSON list"):
        _check("tag", {"tokens": "a b", "tags": "[1]"}, untyped=True)


def test_the_label_of_a_bad_row_is_not_learned():
    book = LabelBook()
    with pytest.raises(BadRow):
        check_row({"text": "", "label": "ghost"}, Rules("classify", book))
    assert book.order("t") == ((), [])


def _chat(*texts, **answer):
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    messages[-1] |= answer
    return messages


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "if a:\nb()", "completion": "x"},
        {"prompt": "IF a:\n    b()", "completion": "x"},
        {"prompt": "if a:\n  b()", "completion": "x"},
    ],
)
def test_rows_that_differ_in_case_or_indentation_are_not_the_same_and_nearly_are(other):
    row = {"prompt": "if a:\n    b()", "completion": "x"}
    assert digest_of(other) != digest_of(row)
    assert loose_digest_of(other) == loose_digest_of(row)


def test_content_is_what_is_asked_whatever_its_unicode_line_ends_and_answer():
    assert content_of({"text": "caf\u00e9\r\nnoir \n"}) == content_of({"text": "cafe\u0301\nnoir", "label": 1})
    assert digest_of({"prompt": "A?", "completion": "x"}) == digest_of({"prompt": "A?", "completion": "y"})
    assert content_of({"text": "a b"}) != content_of({"text": "a", "text_pair": "b"})
    assert content_of({"tokens": ["a", "b"]}) != content_of({"tokens": ["ab"]})
    assert content_of({"messages": _chat("a", "b")}) == content_of({"messages": _chat("a", "c")})
    assert content_of({"messages": _chat("a", "b")}) != content_of({"messages": _chat("A", "b")})
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]
    assert content_of({"messages": parts}) == content_of({"messages": _chat("a", "b")})


def test_what_a_chat_asks_beside_its_texts_is_content_and_no_near_duplicate():
    calls = [
        {
            "messages": [
                *_chat("a", "I look.", tool_calls=[{"function": {"arguments": {"city": city}}}]),
                *_chat("b", "c"),
            ]
        }
        for city in ("Rome", "Oslo")
    ]
    with_tools = {**calls[0], "tools": [{"name": "weather"}]}
    assert len({digest_of(row) for row in (*calls, with_tools)}) == 3
    assert len({loose_digest_of(row) for row in (*calls, with_tools)}) == 1


def test_the_loose_digest_never_changes():
    assert loose_digest_of({"text": " The  CAT\n"}).hex() == LOOSE
    assert loose_digest_of({"text": "the cat", "label": 1}).hex() == LOOSE


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"prompt": "a", "completion": " b\n"}, "b"),
        ({"messages": _chat("a", "b ")}, "b"),
        ({"messages": _chat("a", [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}])}, "bc"),
        ({"text": "a", "label": 2}, 2),
        ({"tokens": ["a"], "tags": [1]}, [1]),
        ({"text": "a"}, None),
    ],
)
def test_the_answer_of_each_kind_of_row(row, answer):
    assert answer_of(row) == answer


CALLS = [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"id": "1"}]}]
RESULT = [{"role": "tool", "content": "", "tool_call_id": "1"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_a_turn_that_calls_tools_needs_no_text(content):
    messages = [CALLS[0], {**CALLS[1], **content}, *RESULT]
    assert _check("messages", {"messages": messages})["messages"] == messages


def test_messages_and_tools_pass_unchanged():
    messages = [{"role": "user", "content": "a", "name": "Ann"}, {"role": "assistant", "content": "b", "thinking": "c"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    row = _check("messages", {"messages": messages, "tools": tools})
    assert (row["messages"], row["tools"]) == (messages, tools)
    assert _check("messages", {"messages": messages, "tools": json.dumps(tools)})["tools"] == tools
    assert _check("messages", {"messages": messages, "tools": []})["tools"] is None


def test_keys_that_arrow_made_up_are_taken_off():
    messages = [
        {"role": "user", "content": "a", "tool_calls": None},
        {"role": "assistant", "content": "b", "name": None},
    ]
    row = {"messages": messages, "tools": [{"name": "f", "parameters": {"city": None}}]}
    checked = _check("messages", row, padded=True)
    assert checked["messages"] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert checked["tools"] == [{"name": "f", "parameters": {}}]
    assert _check("messages", row)["messages"] == messages


def test_a_prompt_and_a_completion_of_messages_are_one_conversation():
    row = {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}
    assert _check("conversation", row)["messages"] == [*row["prompt"], *row["completion"]]
    assert kind_of("conversation") == "prompt"
    with pytest.raises(BadRow, match="prompt is str, not a list"):
        _check("conversation", {**row, "prompt": "a"})


def test_a_row_of_two_forms_is_bad_unless_the_columns_say_which_counts():
    row = {"prompt": "a", "completion": "b", "messages": _chat("c", "d")}
    for shape in ("prompt", "messages"):
        with pytest.raises(BadRow, match=r"has both prompt and messages: write columns: \{messages: messages\}, or"):
            _check(shape, row)
    assert _check("messages", row, columns={"messages": "messages"})["messages"] == row["messages"]
    assert _check("prompt", row, columns={"prompt": "prompt"})["prompt"] == "a"


def test_tags_that_are_none_are_ignored():
    book = LabelBook()
    row = check_row({"tokens": ["a", "b", "c"], "tags": [5, -100, -1]}, Rules("tag", book))
    assert (row["tags"], book.order("t")) == ([0, IGNORED, IGNORED], (("5",), [0]))
    named = check_row({"tokens": ["a", "b"], "tags": ["-1", -100]}, Rules("tag", LabelBook(["-1", "1"])))
    assert named["tags"] == [0, IGNORED]


def test_minus_one_is_a_label_where_training_rows_have_it_and_else_none():
    book = LabelBook()
    rules = Rules("classify", book)
    assert [check_row({"text": "a", "label": label}, rules)["label"] for label in (-1, 1)] == [0, 1]
    book.closed = True
    assert check_row({"text": "a", "label": "-1.0"}, rules)["label"] == 0
    other = LabelBook()
    check_row({"text": "a", "label": 0}, Rules("classify", other))
    other.closed = True
    with pytest.raises(BadRow, match=r"label -1 marks a row without a label \(no training row has it\)"):
        check_row({"text": "a", "label": -1}, Rules("classify", other))

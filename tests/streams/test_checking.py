import math

import pytest

from everlearn.streams.checking import Rules, check_row, content_of, digest_of, kind_of, rename, shape_of
from everlearn.streams.labels import BadRow, LabelBook


def _check(shape, row, **options):
    return check_row(row, Rules(shape, LabelBook(), **options))


@pytest.mark.parametrize(
    ("columns", "shape"),
    [
        (["completion", "prompt", "text"], "prompt"),
        (["messages"], "messages"),
        (["text", "label", "id"], "classify"),
        (["tokens", "tags"], "tag"),
        (["text"], "text"),
        (["prompt"], None),
        (["tokens", "label"], None),
    ],
)
def test_columns_tell_the_shape(columns, shape):
    assert shape_of(columns) == shape


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
        ("tag", {"tokens": ["a", "b"], "tags": ["O"]}, "tokens and tags differ in length: 2 and 1"),
        ("tag", {"tokens": [], "tags": []}, "tokens is empty"),
        ("tag", {"tokens": ["a", ""], "tags": ["O", "O"]}, r"tokens\[1\] is empty"),
        ("tag", {"tokens": ["a"], "tags": [None]}, r"tags\[0\] is null"),
        ("tag", {"tokens": "a", "tags": ["O"]}, "tokens is str, not a list"),
        ("messages", {"messages": [{"role": "user"}]}, r"messages\[0\] is no object with 'role' and 'content'"),
        ("messages", {"messages": [{"role": "user", "content": "a"}] * 2}, "end with the assistant's"),
        ("messages", {"messages": [{"role": "assistant", "content": "a"}]}, "at least two"),
    ],
)
def test_a_bad_row_says_why(shape, row, reason):
    with pytest.raises(BadRow, match=reason):
        _check(shape, row)


def test_a_missing_mapped_column_is_named_as_in_the_file():
    with pytest.raises(BadRow, match=r"column 'question' \(for 'prompt'\) is missing"):
        _check("prompt", {"prompt": "a", "completion": "b"}, columns={"prompt": "question"})


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


def test_content_is_what_is_asked_whatever_case_and_spaces():
    assert content_of({"text": " The  CAT\n"}) == content_of({"text": "the cat", "label": 1})
    assert digest_of({"prompt": "A?", "completion": "x"}) == digest_of({"prompt": "a?", "completion": "y"})
    assert content_of({"text": "a b"}) != content_of({"text": "a", "text_pair": "b"})
    assert content_of({"tokens": ["a", "b"]}) != content_of({"tokens": ["ab"]})
    chats = [[{"role": "user", "content": ask}, {"role": "assistant", "content": "b"}] for ask in ("a", "A", "c")]
    contents = [content_of({"messages": chat}) for chat in chats]
    assert contents[0] == contents[1] != contents[2]

import pytest

from everlearn.errors import StreamError
from everlearn.streams import parts
from everlearn.streams.checking import Rules
from everlearn.streams.labels import LabelBook
from everlearn.streams.mapped import mapped
from everlearn.streams.parts import BadRows, check_disjoint, read_part, to_rows
from everlearn.streams.reading import open_source
from everlearn.types import IGNORED


def _part(rows, shape="classify", book=None, name="train"):
    bad = BadRows("task 't'")
    part = read_part(open_source(rows, "task 't'", name), Rules(shape, book or LabelBook(), extra_columns=("n",)), bad)
    return part, bad


def test_labels_are_renumbered_in_every_chunk(monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK", 2)
    book = LabelBook()
    part, _ = _part([{"text": "abcde"[i], "label": "edcba"[i]} for i in range(5)], book=book)
    assert len(part.chunks) == 3
    data = to_rows(part, book.order("t")[1])
    assert data["label"] == [4, 3, 2, 1, 0]
    assert data.column_names == ["text", "label"]


def test_tags_are_renumbered(monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK", 2)
    book = LabelBook()
    tags = [["O"], ["B", "O"], ["A", "B", "O"]]
    part, _ = _part([{"tokens": ["w"] * len(row), "tags": row} for row in tags], "tag", book)
    assert to_rows(part, book.order("t")[1])["tags"] == [[2], [1, 2], [0, 1, 2]]


def test_a_column_that_is_null_at_first_is_kept(monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK", 1)
    part, _ = _part([{"text": "a", "label": 0}, {"text": "b", "text_pair": "c", "label": 0, "n": 3}])
    data = to_rows(part, [0], [1, 0])
    assert data.to_list() == [{"n": 3, "text": "b", "text_pair": "c", "label": 0}, {"n": None, "text": "a"} | {
        "text_pair": None, "label": 0}]  # fmt: skip


def test_tags_that_are_ignored_stay_so():
    book = LabelBook()
    part, _ = _part([{"tokens": ["w"] * 3, "tags": ["O", -100, "B"]}], "tag", book)
    assert to_rows(part, book.order("t")[1])["tags"] == [[1, IGNORED, 0]]


@pytest.mark.parametrize("chunk", [1, 10])
def test_nested_values_come_out_as_they_stood(monkeypatch, chunk):
    monkeypatch.setattr(parts, "_CHUNK", chunk)
    rows = [
        {"text": "a", "n": 1.5},
        {"text": "b"},
        {"text": "c", "n": {"x": 1}},
        {"text": "d", "n": [{"y": "two"}, None]},
    ]
    part = _part(rows, "text")[0]
    assert [row["n"] for row in to_rows(part, [])] == [1.5, None, {"x": 1}, [{"y": "two"}, None]]
    assert part.nested == {"n"}


@pytest.mark.parametrize("chunk", [1, 10])
def test_messages_are_not_given_the_keys_of_others(monkeypatch, chunk):
    monkeypatch.setattr(parts, "_CHUNK", chunk)
    rows = [
        {"messages": [{"role": "user", "content": "a", "call": {key: value}}, {"role": "assistant", "content": "b"}]}
        for key, value in (("date", "d0"), ("city", 3), ("city", "Rome"))
    ]
    data = to_rows(_part(rows, "messages")[0], [])
    assert list(data) == rows
    assert list(data.select([2, 0])) == [rows[2], rows[0]]


@pytest.mark.parametrize("chunk", [1, 10])
def test_a_column_of_two_types_is_refused(monkeypatch, chunk):
    monkeypatch.setattr(parts, "_CHUNK", chunk)
    rows = [{"text": "a", "n": 1}, {"text": "b", "n": "two"}]
    with pytest.raises(StreamError, match="columns mix types"):
        to_rows(_part(rows, "text")[0], [])


def test_bad_rows_are_counted_and_five_are_shown():
    rows = [{"text": ""}] * 7 + [{"text": "a"}]
    part, bad = _part(rows, "text")
    assert list(part.numbers) == [8]
    with pytest.raises(StreamError) as caught:
        bad.settle("error")
    message = str(caught.value)
    assert message.startswith("task 't': bad rows: train row 1: text is empty; train row 2: text is empty;")
    assert "train row 5: text is empty; and 2 more. Got '7 bad of 8 rows'" in message
    assert "row 6" not in message
    with pytest.warns(UserWarning, match="task 't': skipped 7 of 8 rows: train row 1"):
        bad.settle("skip")


def test_good_rows_settle_silently():
    _part([{"text": "a"}], "text")[1].settle("error")


def test_no_row_at_all_is_an_error():
    with pytest.raises(StreamError, match="there is no row"):
        _part([], "text")


def test_shared_content_is_named_by_both_places():
    train, _ = _part([{"text": "x"}, {"text": "same"}, {"text": "same"}], "text")
    evaluation, _ = _part([{"text": "y"}, {"text": "same\n"}], "text", name="evaluation")
    check_disjoint("t", {"train": train})
    with pytest.raises(StreamError) as caught:
        check_disjoint("task 't'", {"train": train, "evaluation": evaluation})
    assert "train and evaluation share rows, the first is train row 2 and evaluation row 2" in str(caught.value)
    assert "Got '1 of 2 rows'" in str(caught.value)


@pytest.mark.parametrize("indices", [None, [0, 2, 3, 8], [5, 1, 7]])
def test_rows_beyond_a_size_lie_on_disk_and_are_the_same(monkeypatch, indices):
    rows = [{"text": f"{i}", "label": i % 2, **({"text_pair": "x"} if i > 6 else {})} for i in range(9)]
    monkeypatch.setattr(parts, "_CHUNK", 2)
    book, written = LabelBook(), []
    wanted = to_rows(_part(rows, book=book)[0], [0, 1], indices)
    monkeypatch.setattr(parts, "mapped", lambda table: written.append(len(table)) or mapped(table))
    for limit in (1, 100):
        written.clear()
        monkeypatch.setattr(parts, "MAPPED_BYTES", limit)
        part, _ = _part(rows)
        assert sum(written) == 9, "those that were in memory too"
        found = to_rows(part, [0, 1], indices)
        assert sum(written) == 9 + (len(indices or ()) if limit == 1 else 0), "few rows needn't lie on disk"
        assert found.to_list() == wanted.to_list()
        assert found.features == wanted.features

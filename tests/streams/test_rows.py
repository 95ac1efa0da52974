import datasets

from everlearn.streams.rows import NestedRows, column_of, encoded
from everlearn.streams.sampling import groups_of, select_rows
from everlearn.types import Task

VALUES = [{"a": 1}, None, {"b": [1, "x"]}]


def _rows():
    columns = {"text": ["x", "y", "z"], "label": [0, 1, 0], "more": [encoded(value) for value in VALUES]}
    return NestedRows(datasets.Dataset.from_dict(columns), frozenset({"more"}))


def test_rows_are_decoded_however_they_are_taken():
    rows = _rows()
    assert len(rows) == 3
    assert [row["more"] for row in rows] == VALUES
    assert rows[-1] == {"text": "z", "label": 0, "more": {"b": [1, "x"]}}
    assert [row["more"] for row in rows[1:]] == VALUES[1:]
    assert [row["more"] for row in select_rows(rows, [2, 0])] == [VALUES[2], VALUES[0]]


def test_plain_columns_are_read_at_once():
    rows = _rows()
    assert column_of(rows, "label") == column_of(rows.table, "label") == column_of(list(rows), "label") == [0, 1, 0]
    assert groups_of(Task("t", "classify", rows, rows), rows) == [0, 1, 0]

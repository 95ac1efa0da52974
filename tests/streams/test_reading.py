import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everlearn.errors import StreamError
from everlearn.streams.reading import open_source


def _read(data):
    return list(open_source(data, "task 't'", "train").read())


def _write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_jsonl_takes_a_byte_order_mark_crlf_and_blank_lines(tmp_path):
    path = _write(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"text": "caf\xc3\xa9"}\r\n\r\n{"text": "b"}')
    assert _read(path) == [(1, {"text": "café"}), (3, {"text": "b"})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "invalid JSON: Expecting"),
        (b'["a"]', "list, not an object"),
        (b'{"text": "\xff"}', "not UTF-8 (byte 0xff at position 10)"),
        (b"[" * 100_000, "invalid JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "invalid JSON"),
    ],
)
def test_a_bad_json_line_is_named_and_the_next_is_read(tmp_path, line, reason):
    rows = _read(_write(tmp_path, "a.jsonl", b'{"text": "x"}\n' + line + b'\n{"text": "y"}\n'))
    assert [number for number, _ in rows] == [1, 2, 3]
    assert reason in rows[1][1]
    assert rows[2][1] == {"text": "y"}


def test_csv_takes_a_byte_order_mark_crlf_quotes_and_line_breaks(tmp_path):
    content = '\ufefftext,label\r\n"a, ""b""\nc",x\r\n\r\nd,y\r\n'
    rows = _read(_write(tmp_path, "a.csv", content))
    assert rows == [(2, {"text": 'a, "b"\nc', "label": "x"}), (5, {"text": "d", "label": "y"})]


def test_tsv_splits_at_tabs(tmp_path):
    assert _read(_write(tmp_path, "a.tsv", "text\tlabel\na, b\tx\n")) == [(2, {"text": "a, b", "label": "x"})]


def test_a_csv_field_may_be_longer_than_the_csv_modules_limit(tmp_path):
    rows = _read(_write(tmp_path, "a.csv", "text\n" + "x" * 200_000 + "\n"))
    assert len(rows[0][1]["text"]) == 200_000


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a,b,c", "3 fields where the header has 2"),
        (b"a", "1 fields where the header has 2"),
        (b"\xff,b", "not UTF-8"),
        (b'"a"b,c', "invalid CSV"),
    ],
)
def test_a_bad_csv_row_is_named_and_the_next_is_read(tmp_path, line, reason):
    rows = _read(_write(tmp_path, "a.csv", b"text,label\nx,1\n" + line + b"\ny,2\n"))
    assert [number for number, _ in rows] == [2, 3, 4]
    assert reason in rows[1][1]
    assert rows[2][1] == {"text": "y", "label": "2"}


def test_a_csv_quote_that_never_closes_is_named_by_the_line_where_it_opens(tmp_path):
    rows = _read(_write(tmp_path, "a.csv", 'text\na\n"b\nc\n'))
    assert rows[1][0] == 3
    assert "invalid CSV" in rows[1][1]


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    with pytest.raises(StreamError, match=r"a\.csv: the header names a column twice. Got \['text'\]"):
        _read(_write(tmp_path, "a.csv", "text, text\na,b\n"))


def test_parquet_rows_are_numbered_across_batches(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [str(i) for i in range(10_000)]}), path)
    rows = _read(path)
    assert rows[0] == (1, {"text": "0"})
    assert rows[-1] == (10_000, {"text": "9999"})


def test_parquet_text_that_is_not_utf8_is_a_bad_row(tmp_path):
    path = tmp_path / "a.parquet"
    text = pa.array([b"a", b"\xff", b"c"], type=pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": text}), path)
    assert _read(path) == [(1, {"text": "a"}), (2, "not UTF-8 (byte 0xff at position 0)"), (3, {"text": "c"})]


@pytest.mark.parametrize("kept_bytes", [3, 200, -1])
def test_a_truncated_parquet_file_is_one_clear_error(tmp_path, kept_bytes):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [str(i) for i in range(1000)]}), path)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(StreamError, match="task 't', train: the Parquet file can't be read"):
        _read(path)


def test_parquet_damaged_in_the_middle_is_one_clear_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [str(i) for i in range(1000)]}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    with pytest.raises(StreamError, match="the Parquet file can't be read"):
        _read(path)


def test_labels_come_from_the_parquet_schema(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["a"], "label": [1]}).replace_schema_metadata({"labels": '["no", "yes"]'})
    pq.write_table(table, path)
    assert open_source(path, "t", "train").labels == ("no", "yes")
    pq.write_table(table.replace_schema_metadata({"labels": "no, yes"}), path)
    with pytest.raises(StreamError, match="no JSON list of names"):
        open_source(path, "t", "train")


def test_labels_come_from_the_features_of_a_dataset_in_memory_and_on_disk(tmp_path):
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B"])),
        }
    )
    data = datasets.Dataset.from_dict({"tokens": [["a"]], "tags": [[1]]}, features=features)
    data.to_parquet(tmp_path / "a.parquet")
    assert open_source(data, "t", "train").labels == ("O", "B")
    assert open_source(tmp_path / "a.parquet", "t", "train").labels == ("O", "B")
    assert _read(data) == [(1, {"tokens": ["a"], "tags": [1]})]


def test_rows_in_memory_that_are_no_objects_are_bad():
    assert _read([{"text": "a"}, "b"]) == [(1, {"text": "a"}), (2, "str, not an object with columns")]


@pytest.mark.parametrize(
    ("name", "what"),
    [("no.jsonl", "can't be opened"), ("a.json", "type of the file is unknown"), ("e.csv", "is empty")],
)
def test_files_that_cant_be_read_are_named(tmp_path, name, what):
    _write(tmp_path, "e.csv", "")
    _write(tmp_path, "a.json", "[]")
    with pytest.raises(StreamError, match=f"{what}.*{name}"):
        open_source(tmp_path / name, "task 't'", "train")


def test_data_of_another_type_is_refused():
    with pytest.raises(StreamError, match=r"is no data that can be read. Got 'int'"):
        open_source(3, "task 't'", "train")

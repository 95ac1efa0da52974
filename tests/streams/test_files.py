import doctest
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everlearn import registry
from everlearn.errors import ConfigError, StreamError
from everlearn.streams import files
from everlearn.streams.files import FileStream, load_task

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def _write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("b", "a"):
        _write(tmp_path / name / "train.jsonl", [{"q": f"{name} {i}", "answer": str(i)} for i in range(5)])
        _write(tmp_path / name / "test.jsonl", [{"q": f"{name} {i}", "answer": str(i)} for i in range(5, 8)])
    return tmp_path


COLUMNS = {"prompt": "q", "completion": "answer"}


def test_the_example_in_the_header_is_item_0():
    result = doctest.testmod(files)
    assert result.attempted >= 3
    assert result.failed == 0


def test_it_is_registered():
    assert registry.find("stream", "files") is FileStream


def test_a_folder_is_a_stream_of_its_tasks_by_name(folder):
    stream = FileStream(paths=str(folder), columns=COLUMNS, max_new_tokens=4).build()
    assert [task.name for task in stream] == ["a", "b"]
    task = stream.tasks[1]
    assert task.train[0] == {"prompt": "b 0", "completion": "0"}
    assert (len(task.train), len(task.evaluation), task.max_new_tokens) == (5, 3, 4)


def test_the_same_folder_gives_the_same_rows(folder):
    first, second = (FileStream(paths=str(folder / "a" / "train.jsonl"), columns=COLUMNS).build() for _ in range(2))
    assert first.tasks[0].train.to_list() == second.tasks[0].train.to_list()
    assert first.tasks[0].evaluation.to_list() == second.tasks[0].evaluation.to_list()


def test_tasks_choose_and_order_what_is_found(folder):
    stream = FileStream(paths=[str(folder / "a"), str(folder / "b")], columns=COLUMNS, tasks=["b", "a"]).build()
    assert [task.name for task in stream] == ["b", "a"]
    with pytest.raises(ConfigError, match=r"stream.tasks\[0\]: is no task under stream.paths. Got 'bb'.*Found: a, b"):
        FileStream(paths=str(folder), columns=COLUMNS, tasks=["bb"]).build()


def test_tasks_name_their_own_files_and_options(folder):
    labelled = _write(folder / "c.jsonl", [{"text": str(i), "label": i % 2} for i in range(9)])
    more = _write(folder / "d.jsonl", [{"text": str(i), "label": i % 2} for i in range(9, 12)])
    entry = {"name": "parity", "train": labelled, "eval": more, "labels": ["even", "odd"], "columns": {}}
    task = FileStream(tasks=[entry], columns=COLUMNS).build().tasks[0]
    assert (task.name, task.kind, task.labels, len(task.evaluation)) == ("parity", "classify", ("even", "odd"), 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "stream.paths: there is nothing to read"),
        ({"tasks": [{"name": "a"}]}, r"stream.tasks\[0\].train: is missing"),
        ({"tasks": [{"train": "a.csv"}]}, r"stream.tasks\[0\].name: is missing"),
        ({"tasks": [{"name": "a", "train": "a", "evall": "b"}]}, r"stream.tasks\[0\].evall: .*Did you mean 'eval'"),
        ({"tasks": [3]}, r"stream.tasks\[0\]: is neither a name nor a mapping. Got 3"),
        ({"paths": "x", "kind": "promt"}, "stream.kind: .*Did you mean 'prompt'"),
    ],
)
def test_a_bad_field_is_named_before_any_file_is_read(fields, message):
    with pytest.raises(ConfigError, match=message):
        FileStream(**fields)


def test_csv_jsonl_and_parquet_give_the_same_task(tmp_path):
    rows = [{"text": f"row {i}", "label": ("no", "yes")[i % 2]} for i in range(40)]
    _write(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.csv").write_text("text,label\r\n" + "".join(f"{row['text']},{row['label']}\r\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    tasks = [load_task("t", tmp_path / f"a.{suffix}") for suffix in ("jsonl", "csv", "parquet")]
    assert tasks[0].labels == ("no", "yes")
    for task in tasks[1:]:
        assert task.train.to_list() == tasks[0].train.to_list()
        assert task.evaluation.to_list() == tasks[0].evaluation.to_list()
        assert task.labels == tasks[0].labels


def test_a_bad_row_is_reported_with_file_line_and_reason(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("text,label\nfine,1\n,1\nodd,1,2\n")
    with pytest.raises(StreamError) as caught:
        FileStream(paths=str(path)).build()
    expected = f"task 'bad': bad rows: {path} line 3: text is empty; {path} line 4: 3 fields where the header has 2."
    assert str(caught.value).startswith(expected)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not there")
class TestRealData:
    def test_classification_with_labels_in_the_schema(self):
        stream = FileStream(paths=str(DATA / "cl15"), tasks=["dbpedia", "amazon", "agnews", "yelp"]).build()
        assert [len(task.labels) for task in stream] == [14, 5, 4, 5]
        dbpedia = stream.tasks[0]
        assert (len(dbpedia.train), len(dbpedia.evaluation), dbpedia.labels[:2]) == (
            1000, 500, ("Company", "Educational Institution"),
        )  # fmt: skip
        raw = pq.read_table(DATA / "cl15" / "dbpedia" / "train.parquet").to_pylist()
        assert [dbpedia.labels[label] for label in dbpedia.train["label"]] == [row["label_name"] for row in raw]
        assert dbpedia.train["text"] == [row["text"] for row in raw]

    def test_label_names_as_completions(self):
        columns = {"prompt": "text", "completion": "label_name"}
        task = FileStream(paths=str(DATA / "cl15" / "agnews"), columns=columns).build().tasks[0]
        assert task.kind == "prompt"
        assert set(task.evaluation["completion"]) <= {"World", "Sports", "Business", "Science or Technology"}

    def test_entities(self):
        task = FileStream(paths=str(DATA / "ner"), tasks=["conll2003"]).build().tasks[0]
        first = json.loads((DATA / "ner" / "conll2003" / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])
        assert (task.kind, len(task.train), len(task.evaluation), len(task.labels)) == ("tag", 1000, 500, 9)
        assert task.train[0]["tokens"] == first["tokens"]
        assert [task.labels[tag] for tag in task.train[0]["tags"]] == first["tags"]

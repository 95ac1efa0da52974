"""Parquet files: their shape, their rows, and that they appear whole or not at all."""

import doctest

import pyarrow.parquet as pq
import pytest

from everlearn.errors import ConfigError, StateError, StreamError
from everlearn.streams.countdown import generate as module
from everlearn.streams.countdown.generate import FIELDS, Order, generate
from everlearn.streams.countdown.groups import Space
from everlearn.streams.countdown.verify import verify
from everlearn.streams.files import FileStream

SPACE = Space(sizes=(3, 4), max_number=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Groups 0 and + *, 60 and 20 problems each."""
    out = tmp_path_factory.mktemp("countdown")
    generate(Order(SPACE, ("0", "+*"), 60, 20), out)
    return out


def test_the_examples():
    assert doctest.testmod(module).failed == 0


def test_records_are_what_verl_reads(folder):
    rows = pq.read_table(folder / "plus_times" / "train.parquet").to_pylist()
    assert len(rows) == 60
    for index, row in enumerate(rows):
        assert tuple(row) == FIELDS
        assert (row["data_source"], row["ability"]) == ("countdown_plus_times", "math")
        assert row["reward_model"]["style"] == "rule"
        (message,) = row["prompt"]
        assert message["role"] == "user"
        assert all(str(number) in message["content"] for number in (*row["numbers"], row["target"]))
        assert row["reward_model"]["ground_truth"] == {
            "target": row["target"], "numbers": row["numbers"], "operators": "+*",
        }  # fmt: skip
        assert row["extra_info"] == {
            "split": "train", "index": index, "group": "+*", "solution": row["solution"],
            "n_solutions": row["n_solutions"], "needs_new_operator": row["needs_new_operator"],
        }  # fmt: skip
        assert verify(row["completion"][0]["content"], row)
    assert {len(row["numbers"]) for row in rows[:20]} == {3, 4}  # sizes are mixed


def test_files_are_tasks_of_a_file_stream(folder):
    stream = FileStream(
        paths=(str(folder),), verifier="countdown", extra_columns=("numbers", "target", "operators")
    ).build()
    assert [task.name for task in stream] == ["0", "plus_times"]
    for task in stream:
        assert (len(task.train), len(task.evaluation)) == (60, 20)
        row = task.evaluation[0]
        assert verify(row["messages"][-1]["content"], row)


def test_the_number_of_processes_makes_no_difference(folder, tmp_path):
    told = []
    paths = generate(Order(SPACE, ("0", "+*"), 60, 20), tmp_path, 2, lambda group, notes: told.append(group))
    assert sorted(told) == ["+*", "0"]
    for path in paths:
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == [
        "0", "plus_times", "test.parquet", "test.parquet", "train.parquet", "train.parquet",
    ]  # fmt: skip


def test_rows_are_written_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 16)
    generate(Order(SPACE, ("1",), 50, 10), tmp_path)
    file = pq.ParquetFile(tmp_path / "1" / "train.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [16, 16, 16, 2]
    assert [row["index"] for row in file.read().column("extra_info").to_pylist()] == list(range(50))


def test_what_fails_leaves_no_file(tmp_path, monkeypatch):
    def full(self, table, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StateError, match=r"train\.parquet: can't be written \(No space left on device\)"):
        generate(Order(SPACE, ("1",), 50, 10), tmp_path)
    assert list((tmp_path / "1").iterdir()) == []


def test_a_file_that_exists_is_kept(folder):
    before = (folder / "0" / "train.parquet").read_bytes()
    with pytest.raises(ConfigError, match=r"train\.parquet: exists"):
        generate(Order(SPACE, ("1", "0"), 10, 10), folder)
    assert (folder / "0" / "train.parquet").read_bytes() == before
    assert not (folder / "1").exists()


def test_an_error_in_another_process_is_told(tmp_path):
    with pytest.raises(StreamError, match=r"countdown group '[01]': has too few problems"):
        generate(Order(Space(sizes=(3,), max_number=4), ("0", "1"), 500, 10), tmp_path, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": ()}, "groups: are no different groups"),
        ({"groups": ("0", "0")}, "groups: are no different groups"),
        ({"groups": ("0", "9")}, "group: is no group"),
        ({"n_train": 0}, "n_train: is no number"),
        ({"n_test": -1}, "n_test: is no number"),
        ({"seed": -1}, "seed: is no seed"),
        ({"prompt": "long"}, "prompt: is unknown"),
    ],
)
def test_what_an_order_refuses(fields, message):
    with pytest.raises(ConfigError, match=message):
        Order(**fields)

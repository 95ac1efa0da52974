import datasets
import pytest
import torch

from everlearn.errors import StateError
from everlearn.models.load import ModelConfig
from everlearn.provenance import Provenance, data_record, read_begun, rows_sha256
from everlearn.record import Recorder
from everlearn.types import Task, TensorRows

ROWS = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]


def _task(train=ROWS, evaluation=ROWS[:1], labels=("x", "y"), validation=None):
    return Task("t", "classify", train, evaluation, validation, labels=labels, notes=("a note",))


def _made_of(*tasks, model=None):
    return Provenance(tuple(map(data_record, tasks)), model or {"a.safetensors": "1"})


def test_what_is_written_down_of_a_task():
    record = data_record(_task(validation=ROWS))
    assert list(record) == ["task", "kind", "labels", "n", "sha256", "notes"]
    assert record["n"] == {"train": 2, "validation": 2, "evaluation": 1}
    assert record["sha256"]["train"] == record["sha256"]["validation"] != record["sha256"]["evaluation"]
    assert record["notes"] == ["a note"]


def test_the_hash_is_of_rows_in_their_order_whatever_holds_them():
    assert rows_sha256(datasets.Dataset.from_list(ROWS)) == rows_sha256(ROWS) != rows_sha256(ROWS[::-1])
    x, y = torch.arange(6.0).view(3, 2), torch.arange(3)
    first = rows_sha256(TensorRows(x, y))
    assert first == rows_sha256(TensorRows(x.clone(), y))
    others = [TensorRows(x.double(), y), TensorRows(x.view(3, 2, 1), y), TensorRows(x, y + 1), TensorRows(x + 1, y)]
    assert first not in [rows_sha256(other) for other in others]
    samples = [[{"x": torch.full((2000,), fill), "y": 0}] for fill in (1, 1, 2)]
    assert rows_sha256(samples[0]) == rows_sha256(samples[1]) != rows_sha256(samples[2])


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (
            _made_of(_task(ROWS[:1])),
            r"task 't': the rows are not those that it began with\. Got 'train: 2 rows, now 1'",
        ),
        (_made_of(_task(evaluation=ROWS[1:])), r"Got 'evaluation: 1 rows, with other content'"),
        (_made_of(_task(validation=ROWS)), r"Got 'validation: 0 rows, now 2'"),
        (_made_of(_task(labels=("x", "z"))), r"labels: \['x', 'y'\], now \['x', 'z'\]"),
        (_made_of(), r"the tasks are not those that it began with\. Got \"\['t'\], now \[\]\""),
        (
            _made_of(_task(), model={"a.safetensors": "2", "b": "1"}),
            r"model: is not the one that it began with\. Got \['a.safetensors', 'b'\]",
        ),
    ],
)
def test_what_differs_is_named(now, message):
    with pytest.raises(StateError, match=message):
        now.check_same(_made_of(_task()))


def test_the_same_and_the_unknown_pass():
    _made_of(_task(list(ROWS))).check_same(_made_of(_task()))
    _made_of(_task()).check_same(None)


def test_it_is_read_back_from_a_log(tmp_path):
    recorder = Recorder(tmp_path / "results.jsonl")
    made_of = Provenance.of([_task()], ModelConfig("mlp"))
    recorder.header({}, {}, {}, made_of.model)
    recorder.data(made_of.data[0])
    recorder.append({"type": "score"})
    with recorder.path.open("a") as file:
        file.write("{cut off")
    begun = read_begun(recorder.path)
    made_of.check_same(begun)
    assert begun.model == {}
    recorder.path.write_text('{"type": "header"}\n')
    assert read_begun(recorder.path) is None

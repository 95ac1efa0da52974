import json
import math

import pytest
import torch

from everlearn.errors import StateError
from everlearn.record import SCHEMA, Recorder, environment, read_lines
from everlearn.types import Cost, Score, TaskResult


def score(task="a", value=0.5):
    return Score(task, "accuracy", value, 0.1, 0.9, 2, (0.0, 1.0), {"accuracy": value})


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path / "results.jsonl")


def test_each_line_is_on_the_disk_at_once(recorder):
    recorder.header({"stream": {}}, {"device": "cpu"}, {"0": ["a"]}, {"config.json": "1"})
    recorder.data({"task": "a", "n": {"train": 3}})
    recorder.result(TaskResult(0, 1, "b", score()))
    recorder.cost(0, 1, "b", Cost(train_s=2.0, strategy_bytes={"ewc": 3}))
    header, data, cell, cost = [json.loads(line) for line in recorder.path.read_text().splitlines()]
    assert (header["type"], header["schema"], header["tasks"]) == ("header", SCHEMA, {"0": ["a"]})
    assert header["model"] == {"config.json": "1"}
    assert data == {"type": "data", "task": "a", "n": {"train": 3}}
    assert (cell["type"], cell["seed"], cell["after"], cell["trained"], cell["task"]) == ("score", 0, 1, "b", "a")
    assert cell["outcomes"] == [0.0, 1.0]
    assert (cost["type"], cost["train_s"], cost["strategy_bytes"]) == ("cost", 2.0, {"ewc": 3})


def test_what_was_written_later_is_cut(recorder):
    recorder.result(TaskResult(0, 0, "a", score()))
    n = recorder.n_bytes()
    first = recorder.path.read_bytes()
    recorder.result(TaskResult(0, 1, "b", score()))
    recorder.cut(n)
    assert recorder.path.read_bytes() == first
    with pytest.raises(StateError, match="shorter than when the run was saved"):
        recorder.cut(n + 1)


def test_lines_are_read_back_whatever_they_hold(recorder):
    odd = [{"answer": "a\u2028b\x85c\x1cd\ne"}, {"n": 1}]
    for line in odd:
        recorder.append(line)
    with recorder.path.open("a") as file:
        file.write('{"cut": ')
    assert read_lines(recorder.path) == odd
    recorder.path.write_text('{"n": 1}\n[]\n')
    with pytest.raises(StateError, match=r"results\.jsonl: can't be read \(line 2 is no object\)"):
        read_lines(recorder.path)
    recorder.path.unlink()
    with pytest.raises(StateError, match="No such file"):
        read_lines(recorder.path)


def test_an_inactive_one_writes_nothing(tmp_path):
    recorder = Recorder(tmp_path / "results.jsonl", active=False)
    recorder.result(TaskResult(0, 0, "a", score()))
    recorder.cut(100)
    assert recorder.n_bytes() == 0
    assert not recorder.path.exists()


def test_nan_is_no_result(recorder):
    with pytest.raises(ValueError, match="JSON"):
        recorder.result(TaskResult(0, 0, "a", score(value=math.nan)))


def test_what_can_not_be_written_is_a_state_error(tmp_path):
    with pytest.raises(StateError, match="everlearn resume"):
        Recorder(tmp_path / "missing" / "results.jsonl").result(TaskResult(0, 0, "a", score()))


def test_the_environment_names_what_a_result_depends_on():
    found = environment(torch.device("cpu"))
    assert (
        found["versions"]["torch"] == torch.__version__.split("+")[0] or found["versions"]["torch"] in torch.__version__
    )
    assert {"python", "platform", "n_cpus", "n_threads", "device"} <= set(found)
    assert found["device"] == "cpu"

"""A recorded run comes out again, step by step. If it should not: `make golden`, and say why in the commit."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
TOLERANCE = 1e-3  # relative, for losses and norms: processors round differently, and a hundred steps add that up

spec = importlib.util.spec_from_file_location("golden_record", FOLDER / "record.py")
record = importlib.util.module_from_spec(spec)
spec.loader.exec_module(record)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_the_recorded_run_comes_out_again(name):
    wanted = json.loads((FOLDER / f"{name}.json").read_text())
    found = record.measure(FOLDER / f"{name}.yaml")
    assert json.loads(json.dumps(found["config"])) == wanted["config"], "the recipe changed: make golden"
    assert len(found["steps"]) == len(wanted["steps"])
    for number, (step, recorded) in enumerate(zip(found["steps"], wanted["steps"], strict=True)):
        for key in ("loss", "grad_norm"):
            assert step[key] == pytest.approx(recorded[key], rel=TOLERANCE, abs=1e-5), f"{key} of step {number}"
    one_item = 1 / wanted["config"]["stream"]["per_task_eval"]
    for row, recorded in zip(found["matrix"], wanted["matrix"], strict=True):
        for cell, value in zip(row, recorded, strict=True):
            assert (cell is None) == (value is None)
            assert cell is None or cell == pytest.approx(value, abs=one_item + 1e-9)


def test_the_record_is_of_a_run_that_learns_and_keeps():
    matrix = json.loads((FOLDER / "digits_replay_ewc.json").read_text())["matrix"]
    assert matrix[0][1] is None
    assert min(matrix[-1]) > 0.5

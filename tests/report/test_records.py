import json
import math

import pytest
from tests.report.conftest import cost_line, header_line, score_line, write_log

from everlearn.errors import StateError
from everlearn.report.records import read_run

HEADER = header_line({0: ["a", "b"]})


def test_a_log_reads_back(tmp_path):
    lines = [HEADER, score_line(0, 0, "a", "a", [1, 0, 1, 1]), cost_line(0, 0, "a", {"ewc": 7})]
    run = read_run(write_log(tmp_path, lines))
    assert run.schedule == {0: ("a", "b")}
    assert run.recipe == {"stream": {"name": "made_up"}}
    (result,) = run.scores
    assert (result.seed, result.after, result.trained) == (0, 0, "a")
    assert (result.score.task, result.score.value, result.score.n) == ("a", 0.75, 4)
    assert result.score.outcomes == (1.0, 0.0, 1.0, 1.0)
    (cost,) = run.costs
    assert cost.cost.strategy_bytes == {"ewc": 7}
    assert (cost.cost.mean_loss, cost.cost.n_epochs, cost.cost.best_epoch) == (1.25, 0, None)


def test_a_repeated_cell_takes_the_later_line(tmp_path):
    lines = [HEADER, score_line(0, 0, "a", "a", [1, 0]), score_line(0, 0, "a", "a", [1, 1])]
    assert [result.score.value for result in read_run(write_log(tmp_path, lines)).scores] == [1.0]


def test_missing_bounds_are_nan(tmp_path):
    line = {**score_line(0, 0, "a", "a", [1]), "low": None, "high": None}
    (result,) = read_run(write_log(tmp_path, [HEADER, line])).scores
    assert math.isnan(result.score.low)


def test_a_cut_line_is_named(tmp_path):
    write_log(tmp_path, [HEADER, score_line(0, 0, "a", "a", [1, 0])])
    path = tmp_path / "results.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(StateError, match=r"results\.jsonl, line 2: is no JSON"):
        read_run(tmp_path)


SCORE = score_line(0, 0, "a", "a", [1, 0])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([SCORE], "line 1: the first line is no header"),
        ([{**HEADER, "schema": 2}], "line 1: is of another schema"),
        ([{**HEADER, "tasks": {}}], "line 1: tasks names no seed"),
        ([{**HEADER, "tasks": {"x": ["a"]}}], "line 1: tasks holds no list"),
        ([HEADER, {**SCORE, "type": "scores"}], "line 2: unknown type"),
        ([HEADER, {**SCORE, "seed": 3}], "line 2: seed is not in the header"),
        ([HEADER, {**SCORE, "after": 2}], "line 2: after is outside the schedule"),
        ([HEADER, {**SCORE, "value": "0.5"}], "line 2: value has a wrong type"),
        ([HEADER, {**SCORE, "value": True}], "line 2: value has a wrong type"),
        ([HEADER, {**SCORE, "value": math.nan}], "line 2: value is not finite"),
        ([HEADER, {**SCORE, "n": 0}], "line 2: n is below 1"),
        ([HEADER, {**SCORE, "outcomes": [1, None]}], "line 2: outcomes holds something"),
        ([HEADER, {**SCORE, "answers": ["a", None]}], "line 2: answers holds something that is no text"),
        ([HEADER, SCORE, {k: v for k, v in SCORE.items() if k != "task"}], "line 3: task is missing"),
        ([HEADER, [1, 2]], "line 2: is no JSON object"),
        (
            [HEADER, {**cost_line(0, 0, "a", {}), "strategy_facts": {"hat": 3}}],
            "line 2: strategy_facts holds",
        ),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, lines, message):
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(StateError, match=message):
        read_run(tmp_path)


def test_what_the_rows_were_is_read_once_a_task(tmp_path):
    lines = [{"type": "data", "task": "a", "n": {"train": n}} for n in (3, 4)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [HEADER, *lines, SCORE]))
    assert read_run(tmp_path).data == ({"task": "a", "n": {"train": 4}},)


def test_a_missing_or_empty_log_is_an_error(tmp_path):
    with pytest.raises(StateError, match="can't be read"):
        read_run(tmp_path)
    (tmp_path / "results.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(StateError, match="can't be read"):
        read_run(tmp_path)
    (tmp_path / "results.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(StateError, match="is empty"):
        read_run(tmp_path)

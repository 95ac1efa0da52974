import json
from pathlib import Path

import pytest
from tests.report.conftest import header_line, joint_lines, stream_lines, write_log

from everlearn.evaluation import metrics
from everlearn.report.results import write_results

TASKS = ["a", "b", "c"]


def strict_json(path: Path) -> dict:
    """Read JSON that must not hold NaN or Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_the_file_holds_what_is_returned(make_run):
    folder = make_run("plain", TASKS, seeds=2, ewc=1000)
    results = write_results(folder)
    assert strict_json(folder / "results.json") == results
    assert results["schema"] == 1
    assert results["complete"] is True
    assert [path.name for path in folder.iterdir() if path.suffix == ".tmp"] == []


def test_the_metrics_follow_from_the_matrix(make_run):
    entry = write_results(make_run("plain", TASKS))["seeds"][0]
    assert entry["tasks"] == TASKS
    assert entry["learned_at"] == [0, 1, 2]
    for name in ("average_accuracy", "backward_transfer", "forgetting", "learning_accuracy"):
        assert entry["metrics"][name] == pytest.approx(vars(metrics)[name](entry["matrix"]))
        assert entry["intervals"][name]["low"] <= entry["metrics"][name] <= entry["intervals"][name]["high"]
    expected = metrics.forward_transfer(entry["matrix"], entry["baseline"])
    assert entry["metrics"]["forward_transfer"] == pytest.approx(expected)


def test_cost_sums_times_and_takes_the_highest_memory(make_run):
    cost = write_results(make_run("plain", TASKS, ewc=1000))["seeds"][0]["cost"]
    assert cost["total"]["train_s"] == pytest.approx(3 * 12.5 + 0 + 1 + 2)
    assert cost["total"]["n_tokens"] == 3 * 64_000
    assert cost["total"]["peak_memory_bytes"] == 3 * 10**8
    assert cost["total"]["strategy_bytes"] == {"ewc": 1000}
    assert [step["trained"] for step in cost["steps"]] == TASKS


def test_a_stopped_run_reports_what_is_there(tmp_path):
    lines = stream_lines({0: TASKS}, 0.3, 0.85, 40, {})
    until = next(i for i, line in enumerate(lines) if line.get("after") == 2 and line["task"] == "b")
    results = write_results(write_log(tmp_path, lines[:until]))
    entry = results["seeds"][0]
    assert results["complete"] is False
    assert entry["n_steps_done"] == 2
    assert entry["metrics"]["average_accuracy"] == pytest.approx(sum(entry["matrix"][1][:2]) / 2)
    assert entry["matrix"][2][1:] == [None, None]


def test_a_run_that_has_only_its_header(tmp_path):
    results = write_results(write_log(tmp_path, [header_line({0: TASKS})]))
    assert results["complete"] is False
    assert results["summary"]["average_accuracy"]["mean"] is None
    assert results["seeds"][0]["cost"]["total"]["n_tokens"] == 0


def test_joint_training_has_an_average_and_no_transfer(tmp_path):
    results = write_results(write_log(tmp_path, joint_lines({0: TASKS}, 0.9, 40)))
    entry = results["seeds"][0]
    assert results["complete"] is True
    assert entry["metrics"]["average_accuracy"] == pytest.approx(sum(entry["matrix"][0]) / 3)
    assert entry["metrics"]["backward_transfer"] is None


def test_the_documented_keys_are_the_written_ones(make_run):
    text = (Path(__file__).parents[2] / "docs" / "results-schema.md").read_text(encoding="utf-8")
    example = json.loads(text.split("## `results.json`")[1].split("```json")[1].split("```")[0])
    results = write_results(make_run("plain", TASKS))
    assert set(example) == set(results)
    assert set(example["seeds"][0]) == set(results["seeds"][0])
    assert set(example["seeds"][0]["metrics"]) == set(results["seeds"][0]["metrics"])
    assert set(example["seeds"][0]["cost"]["total"]) == set(results["seeds"][0]["cost"]["total"])
    summary = results["summary"]["average_accuracy"]
    assert set(example["summary"]["average_accuracy"]) == set(summary)

"""The report of runs by reinforcement: its files and tables, for one run, for several and for one that was killed."""

import pytest
from PIL import Image

from everlearn.errors import StateError
from everlearn.kinds.reinforcement import Reinforcement
from everlearn.report.policy_page import course_grid, gains_grid, warm_grid, write_policy_report
from everlearn.report.policy_views import load_policies
from everlearn.report.table import matrix_grid
from everlearn.report.views import load_views
from support.policy_logs import read_lines, write_lines, write_policy_run

OWN = {"success.png", "gains.png", "divergence.png", "signals.png"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "one": write_policy_run(folder / "one", seeds=(0, 1)),
        "$two & <more>": write_policy_run(folder / "two", seeds=(0, 1), n_iterations=0, loss=4),
    }


@pytest.fixture(scope="module")
def policies(runs):
    return load_policies(load_views(runs))


def test_a_report_is_that_of_every_run_and_more(runs, tmp_path):
    shown = Reinforcement.draw(runs, tmp_path)
    files = {entry.name for entry in tmp_path.iterdir()}
    assert files > OWN | {"report.html", "report.md", "matrices.png", "task_curves.png"}
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert page.count("data:image/png;base64,") == len(files) - 2
    assert "Gains of $two &amp; &lt;more&gt;" in page
    assert "Warm starts of one" in page
    assert page.index("Success on every task") < page.index("Scores after each step")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "![What was gained, and what became of the others](gains.png)" in text
    assert [getattr(one, "title", None) for one in shown][-5:-1] == [
        "Gains of one", "Gains of $two & <more>", "Warm starts of one", "Warm starts of $two & <more>",
    ]  # fmt: skip
    for name in OWN:
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 600


def test_the_gains_table_tells_what_became_of_the_others(policies):
    grid = gains_grid(policies[0])
    assert grid.columns == ("learned", "answers", "start", "end", "gain", "others meanwhile")
    assert [row[:4] for row in grid.rows] == [
        ("add", "greedy", "0.250", "0.650"), ("", "sampled", "0.150", "0.550"),
        ("subtract", "greedy", "0.150", "0.550"), ("", "sampled", "0.050", "0.450"),
    ]  # fmt: skip
    assert grid.rows[0][4].startswith("+0.400\n[+0.1")
    assert grid.rows[0][5].startswith("0.250 → 0.150\n−0.100\n[")


def test_warm_starts_stand_apart(policies):
    assert [row[:4] for row in warm_grid(policies[0]).rows] == [
        ("warm start", "greedy", "0.100", "0.250"), ("", "sampled", "0.000", "0.150"),
    ]  # fmt: skip


def test_the_course_of_each_step(policies):
    first, _, without, _ = course_grid(policies).rows
    assert first == (
        "one", "add", "3\n24 answers", "10.5 s\ndrawing 6 s\nlearning 3 s", "0.500", "0.611", "0.200", "0.0200",
        "0.1000", "done",
    )  # fmt: skip
    assert without[2:6] == ("–", "–", "–", "–")
    assert course_grid(policies[:1]).columns[0] == "learned"


def test_rounds_are_named(tmp_path):
    schedule = ("warm start", "add", "subtract", "add", "subtract")
    folder = write_policy_run(tmp_path / "run", schedule=schedule, gain=4)
    (view,) = load_policies(load_views({"run": folder}))
    assert [row[0] for row in gains_grid(view).rows if row[0]] == [
        "add, round 1", "subtract, round 1", "add, round 2", "subtract, round 2",
    ]  # fmt: skip
    assert [row[0] for row in matrix_grid(view.view).rows] == [
        "before training", "1. warm start", "2. add", "3. subtract", "4. add", "5. subtract",
    ]  # fmt: skip


@pytest.mark.parametrize("n_lines", [1, 3, 7])
def test_a_run_that_was_killed_is_drawn(tmp_path, n_lines):
    folder = write_policy_run(tmp_path / "run")
    lines = read_lines(folder / "iterations.jsonl")[:n_lines]
    write_lines(folder / "iterations.jsonl", lines)
    last = max(one["after"] for one in lines if one["iteration"] is None and one["type"] == "evaluation")
    log = folder / "results.jsonl"
    write_lines(log, [one for one in read_lines(log) if one.get("after", -1) <= last])
    write_policy_report(load_views({"run": folder}), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Not finished, shown as far as it went: run." in page
    assert ("Gains" in page) == (n_lines > 2)


def test_what_was_not_measured_since_has_no_gain(tmp_path):
    folder = write_policy_run(tmp_path / "run")
    write_lines(folder / "iterations.jsonl", read_lines(folder / "iterations.jsonl")[:3])
    (view,) = load_policies(load_views({"run": folder}))
    assert gains_grid(view).rows[0] == ("add", "greedy", "0.250", "–", "–", "0.250 → –\n–")
    assert course_grid([view]).rows[0][-1] == "not ended"


def test_why_steps_ended_is_counted_where_seeds_differ(tmp_path):
    folder = write_policy_run(tmp_path / "run", seeds=(0, 1, 2))
    path = folder / "iterations.jsonl"
    lines = [
        one | ({"stopped": "success"} if one["seed"] == 1 and one["iteration"] == 3 else {}) for one in read_lines(path)
    ]
    write_lines(path, lines)
    (view,) = load_policies(load_views({"run": folder}))
    assert [row[-1] for row in course_grid([view]).rows] == ["done 2×, enough right 1×"] * 2


def test_damage_is_named_before_anything_is_written(runs, tmp_path):
    folder = write_policy_run(tmp_path / "run")
    (folder / "iterations.jsonl").write_text("{\n")
    with pytest.raises(StateError, match=r"iterations.jsonl, line 1: is no JSON"):
        Reinforcement.draw({"run": folder, **runs}, tmp_path / "out")
    assert not (tmp_path / "out").exists()

import numpy as np
import pytest
from tests.report.conftest import stream_lines, write_log

from everlearn.evaluation.reliability import reliability
from everlearn.experts.router import Candidate, Decision
from everlearn.report.plot_router import (
    FALSE,
    decisions_figure,
    draw_decisions,
    draw_reliability,
    outcomes,
    reliability_figure,
)
from everlearn.report.plots import write_plots
from everlearn.report.views import load_views

TASKS = [f"task {n}" for n in range(8)]
ACTIONS = ("create", "create", "fork", "reuse", "reuse", "adapt", "compose", "reuse")
RIGHT = (None, False, True, True, False, None, None, True)


def decided(number: int, p: float | None) -> dict:
    best = Candidate(3, "old", 0.1 * number, p, p, 2, {})
    action = ACTIONS[number]
    decision = Decision(action, None, () if number == 0 else (best,), 0.5 + 0.01 * number, action == "reuse", 1.0, "")
    return decision.as_json() | {"reuse_was_right": RIGHT[number], "task": TASKS[number], "n_experts": 2}


def routed(folder, schedule, fixed=False):
    """Write a run whose p is a tenth of the task's place, higher for a later seed."""
    lines = stream_lines(schedule, 0.1, 0.85, 40, {"experts": 1000})
    seed = -1
    for line in lines:
        if line["type"] == "cost":
            seed += line["after"] == 0
            p = None if fixed else line["after"] / 10 + 0.05 * seed
            line["strategy_facts"] = {"experts": decided(line["after"], p)}
    return write_log(folder, lines)


def test_each_decision_has_its_mark_and_the_bar_its_line(tmp_path, make_run):
    runs = {"plain": make_run("plain", TASKS), "routed": routed(tmp_path / "r", {0: TASKS, 1: TASKS})}
    (axes,) = draw_decisions(load_views(runs)).axes
    assert axes.get_title(loc="left") == "routed: 3 of 8 tasks began an expert"
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() != "x"]
    assert [line.get_xdata()[0] for line in marks] == list(range(1, 9))
    np.testing.assert_allclose([line.get_ydata()[0] for line in marks], np.arange(8) / 10)
    assert [line.get_markerfacecolor() == "none" for line in marks] == [False] + [right is None for right in RIGHT[1:]]
    wrong = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "x"]
    assert wrong == [2, 5]
    assert all(line.get_color() == FALSE for line in axes.lines if line.get_marker() == "x")
    (bar,) = [line for line in axes.lines if len(line.get_xdata()) == 8]
    np.testing.assert_allclose(bar.get_ydata(), 0.5 + 0.01 * np.arange(8))


def test_with_a_fixed_threshold_it_is_the_similarity(tmp_path):
    views = load_views({"routed": routed(tmp_path / "r", {0: TASKS}, fixed=True)})
    (axes,) = draw_decisions(views).axes
    assert axes.get_ylabel() == "similarity"
    assert draw_reliability(views) is None


def test_reliability_is_over_all_seeds(tmp_path):
    views = load_views({"routed": routed(tmp_path / "r", {0: TASKS, 1: TASKS})})
    (axes,) = draw_reliability(views).axes
    assert axes.get_title(loc="left") == "routed, 10 outcomes"
    lines = [decided(number, number / 10) for number in range(8)]
    assert outcomes(lines) == ([0.1, 0.2, 0.3, 0.4, 0.7], [False, True, True, False, True])


def test_it_tells_the_numbers_beside_those_of_a_calibrated_p():
    p = np.linspace(0.05, 0.95, 40)
    found = reliability(p, p > 0.5)
    figure = reliability_figure({"one": found, "other": found})
    figure.draw_without_rendering()
    for axes in figure.axes:
        text = axes.get_xlabel()
        assert f"Brier {found.brier.found.value:.3f}" in text
        assert f"if calibrated {found.ece.if_calibrated.value:.3f}" in text


def test_runs_without_a_library_have_no_such_pictures(tmp_path, make_run):
    views = load_views({"plain": make_run("plain", TASKS)})
    assert draw_decisions(views) is None
    assert draw_reliability(views) is None


def test_a_report_has_them(tmp_path):
    views = load_views({"routed": routed(tmp_path / "r", {0: TASKS})})
    names = [picture.path.stem for picture in write_plots(views, tmp_path)]
    assert names.index("decisions") + 1 == names.index("reliability")


@pytest.mark.parametrize("n", [1, 60])
def test_few_and_many_decisions_fit(n):
    lines = [decided(number % 8, 0.5) for number in range(n)]
    decisions_figure({"a run with a rather long name of its own": lines, "b": lines}).draw_without_rendering()

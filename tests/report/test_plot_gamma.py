import numpy as np
import pytest
from tests.report.conftest import stream_lines, write_log

from everlearn.report.plot_gamma import draw_gamma
from everlearn.report.plots import write_plots
from everlearn.report.views import load_views, strategy_curves

TASKS = ["a", "b", "c"]
SIGNALS = ("nll", "accuracy", "gradient_norm", "entropy")


def gated(folder, schedule, steps=(2, 4, 5), until=None, signals=SIGNALS):
    """Write a run in which gamma is the number of the task and the point."""
    lines = stream_lines(schedule, 0.1, 0.85, 40, {"gamma_ewc": 1000})
    for line in lines:
        if line["type"] == "cost":
            gamma = [1 + line["after"] + place / 10 for place in range(len(steps))]
            curve = {"step": list(steps), "gamma": gamma, **{name: [0.5] * len(steps) for name in signals}}
            line["strategy_facts"] = {"gamma_ewc": {"gamma": gamma[0], "curve": curve}, "other": {"columns": 3}}
    return write_log(folder, lines[:until])


def test_gamma_and_its_signals_are_drawn_task_after_task(tmp_path, make_run):
    views = load_views({"plain": make_run("plain", TASKS), "gated": gated(tmp_path / "g", {0: TASKS})})
    panels = draw_gamma(views).axes
    assert [axes.get_ylabel() for axes in panels] == [
        "gamma", "loss, nats", "accuracy", "gradient norm", "entropy, nats",
    ]  # fmt: skip
    assert panels[0].get_title(loc="left") == "gated"
    assert [label.get_text() for label in panels[-1].get_xticklabels()] == TASKS
    lines = [line for line in panels[0].lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(lines[1].get_xdata(), [1 + 1 / 5, 1 + 3 / 5, 1 + 4.5 / 5])  # in the middle of each point
    np.testing.assert_allclose(lines[1].get_ydata(), [2.0, 2.1, 2.2])


def test_each_seed_has_its_line(tmp_path):
    (view,) = load_views({"gated": gated(tmp_path / "g", {0: TASKS, 1: ["b", "c", "a"]})})
    assert [[curve["gamma"][0] for curve in seed] for seed in strategy_curves(view)["gamma_ewc"]] == [[1, 2, 3]] * 2
    (first, *_) = draw_gamma([view]).axes
    assert sum(len(line.get_xdata()) == 3 for line in first.lines) == 6


def test_runs_without_gamma_have_no_such_picture(tmp_path, make_run):
    assert draw_gamma(load_views({"plain": make_run("plain", TASKS)})) is None


def test_signals_that_were_not_measured_have_no_panel(tmp_path):
    views = load_views({"gated": gated(tmp_path / "g", {0: TASKS}, signals=("nll",))})
    assert [axes.get_ylabel() for axes in draw_gamma(views).axes] == ["gamma", "loss, nats"]


def test_a_report_has_it(tmp_path):
    views = load_views({"gated": gated(tmp_path / "g", {0: TASKS})})
    assert "gamma" in [picture.path.stem for picture in write_plots(views, tmp_path)]


@pytest.mark.parametrize(("until", "shown"), [(1, 0), (5, 0), (9, 1), (12, 2), (14, 2)])
def test_a_stopped_run_is_drawn_as_far_as_it_went(tmp_path, until, shown):
    views = load_views({"gated": gated(tmp_path / "g", {0: TASKS}, until=until)})
    figure = draw_gamma(views)
    assert (0 if figure is None else sum(len(line.get_xdata()) == 3 for line in figure.axes[0].lines)) == shown


def test_many_runs_and_tasks_fit(tmp_path):
    tasks = [f"a_task_with_a_long_name_{i}" for i in range(9)]
    views = load_views({f"run {i}": gated(tmp_path / str(i), {0: tasks}) for i in range(4)})
    figure = draw_gamma(views)
    figure.draw_without_rendering()
    assert sum(axes.get_visible() for axes in figure.axes) == 20

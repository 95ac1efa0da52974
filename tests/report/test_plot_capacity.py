from itertools import pairwise

import numpy as np
import pytest
from tests.report.conftest import stream_lines, write_log

from everlearn.report.plot_capacity import draw_capacity, draw_task_scores
from everlearn.report.plots import write_plots
from everlearn.report.views import load_views, owned_shares

TASKS = ["a", "b", "c"]


def packed(folder, schedule, keep=0.25, name="packnet", until=None):
    """Write a run in which each task takes the share `keep` of what is free."""
    lines = stream_lines(schedule, 0.0, 0.85, 40, {name: 1000})
    for line in lines:
        if line["type"] == "cost":
            learned = schedule[line["seed"]][: line["after"] + 1]
            shares = {task: keep * (1 - keep) ** i for i, task in enumerate(learned)}
            facts = {"of": "weights", "total": 800, "shares": shares, "free": 1 - sum(shares.values())}
            line["strategy_facts"] = {name: facts, "other": {"columns": 3}}
    return write_log(folder, lines[:until])


def test_a_bar_for_each_task_and_one_for_what_is_free(tmp_path, make_run):
    runs = {"pack": packed(tmp_path / "pack", {0: TASKS}), "plain": make_run("plain", TASKS)}
    (axes,) = draw_capacity(load_views(runs)).axes
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.25, 0.1875, 0.140625, 0.421875])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "free"]
    assert [text.get_text() for text in axes.texts] == ["25 %", "18.8 %", "14.1 %", "42.2 %"]
    assert axes.get_title(loc="left") == "pack: packnet"


def test_scores_when_learned_and_at_the_end(tmp_path):
    (view,) = load_views({"pack": packed(tmp_path / "pack", {0: TASKS})})
    (axes,) = draw_task_scores([view]).axes
    values, lines = view.matrices[0].values, axes.lines
    np.testing.assert_allclose(lines[0].get_xdata(), values.diagonal())
    np.testing.assert_allclose(lines[1].get_xdata(), values[-1])


def test_seeds_are_averaged_by_place_where_their_orders_differ(tmp_path):
    runs = {"pack": packed(tmp_path / "pack", {0: TASKS, 1: ["b", "c", "a"]})}
    (view,) = load_views(runs)
    np.testing.assert_allclose(owned_shares(view)["packnet"], [0.25, 0.1875, 0.140625, 0.421875])
    (axes,) = draw_capacity([view]).axes
    assert axes.get_yticklabels()[0].get_text() == "task 1"
    (axes,) = draw_task_scores([view]).axes
    assert axes.get_yticklabels()[0].get_text() == "task 1"


def test_runs_without_shares_have_no_such_pictures(make_run, tmp_path):
    views = load_views({"plain": make_run("plain", TASKS, ewc=10)})
    assert draw_capacity(views) is None
    assert draw_task_scores(views) is None
    assert owned_shares(views[0]) == {}


@pytest.mark.parametrize("until", [1, 5, 9, 12, None])
def test_a_report_has_both_also_of_a_stopped_run(tmp_path, until):
    views = load_views({"pack": packed(tmp_path / "pack", {0: TASKS}, until=until)})
    names = [picture.path.stem for picture in write_plots(views, tmp_path)]
    assert ("capacity" in names) == ("task_scores" in names) == (until is None or until > 7)


def test_many_tasks_and_runs_fit(tmp_path):
    tasks = [f"a_task_with_a_long_name_{i}" for i in range(15)]
    runs = {f"run {i}": packed(tmp_path / str(i), {0: tasks}, keep=0.1 + 0.1 * i, name="hat") for i in range(4)}
    figure = draw_capacity(load_views(runs))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    for axes in [axes for axes in figure.axes if axes.get_visible()]:
        boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))

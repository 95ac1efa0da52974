"""What the pictures of runs by reinforcement show."""

import numpy as np
import pytest

from everlearn.report.plot_policy import draw_divergence, draw_gains, draw_signals, draw_success
from everlearn.report.policy_views import load_policies, mean_line
from everlearn.report.views import load_views
from support.policy_logs import N, read_lines, write_lines, write_policy_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    ppo = write_policy_run(folder / "ppo", seeds=(0, 1))
    return {"ppo": ppo, "sft": write_policy_run(folder / "sft", n_iterations=0)}


@pytest.fixture(scope="module")
def views(runs):
    return load_policies(load_views(runs))


def points(line):
    return [(round(float(x), 3), round(float(y), 3)) for x, y in zip(*line.get_data(), strict=True)]


def test_steps_of_several_runs_share_their_places(views):
    assert [[(one.label, one.begin, one.end) for one in view.spans] for view in views] == [
        [("warm start", 0.0, 1.0), ("add", 1.0, 4.0), ("subtract", 4.0, 7.0)]
    ] * 2
    assert views[0].spans[0].is_warm_start


def test_runs_in_other_orders_have_places_of_their_own(tmp_path, runs):
    other = write_policy_run(tmp_path / "other", schedule=("subtract", "add"), n_iterations=5)
    first, second = load_policies(load_views({"ppo": runs["ppo"], "other": other}))
    assert [span.end for span in first.spans] == [1.0, 4.0, 7.0]
    assert [span.end for span in second.spans] == [5.0, 10.0]
    assert len(draw_success([first, second]).axes) == 4


def test_success_has_a_panel_for_each_task_and_run(views):
    figure = draw_success(views)
    add, add_of_sft, subtract, _ = figure.axes
    assert [axes.get_ylabel() for axes in (add, subtract)] == ["add", "subtract"]
    means = [line for line in add.lines if line.get_linewidth() > 1]
    assert points(means[0]) == [(0, 0.1), (1, 0.25), (3, 0.25), (4, 0.65), (6, 0.65), (7, 0.55)]
    assert means[1].get_linestyle() == "--"
    assert points(means[1])[0] == (0.0, 0.0)
    shaded = [(patch.get_x(), patch.get_width()) for patch in subtract.patches]
    assert shaded == [(0.0, 1.0), (4.0, 3.0)]  # the warm start over all tasks, and its own step
    assert [text.get_text() for text in add.texts] == ["warm start", "add", "subtract"]
    alone = [line for line in add_of_sft.lines if line.get_linewidth() > 1]
    assert points(alone[0]) == [(0, 0.1), (1, 0.25), (4, 0.65), (7, 0.55)]


def test_success_of_many_runs_is_left_out(views):
    assert draw_success([*views, *views, views[0]]) is None


def test_signals_of_one_run_and_of_several(views):
    panels = {axes.get_title(): axes for axes in draw_signals(views).axes}
    assert list(panels) == [
        "right answers while learning", "signal", "entropy", "response length", "KL from the start",
        "weight change in the step", "gradient norm", "dormant neurons",
    ]  # fmt: skip
    told = panels["right answers while learning"].lines[-1]
    assert [y for _, y in points(told) if not np.isnan(y)] == [0.1, 0.2, 0.3] * 2
    assert len([line for line in panels["KL from the start"].lines if line.get_linewidth() > 1]) == 2
    assert panels["entropy"].get_xlim() == (0.0, 7.0)
    alone = {axes.get_title() for axes in draw_signals(views[1:]).axes if axes.get_visible()}
    assert alone == {"KL from the start", "dormant neurons"}  # supervised learning has no iterations


def test_kl_counts_from_the_first_step_that_is_no_warm_start(views):
    x, y = views[0].measured(lambda one: one.numbers.get("kl_to_start"))[0]
    assert (x[0], y[0]) == (1.0, 0.0)


def test_gains_stand_beside_each_other_and_warm_starts_apart(views):
    own, others, own_sampled, _ = draw_gains(views).axes
    assert [round(bar.get_height(), 3) for bar in own.patches] == [0.4, 0.4, 0.4, 0.4]
    assert [round(bar.get_height(), 3) for bar in others.patches] == [-0.1, -0.1, -0.1, -0.1]
    assert [label.get_text() for label in own_sampled.get_xticklabels()] == ["add", "subtract"]


def test_others_over_kl(views):
    first, second = draw_divergence(views).axes
    assert (first.get_title(), second.get_title()) == ("while add is learned", "while subtract is learned")
    paths = [points(line) for line in first.lines if line.get_marker() in ("None", "")]
    assert paths[0] == [(0.0, 0.25), (0.15, 0.25), (0.2, 3 / N)]
    assert paths[-1] == [(0.0, 0.25), (0.2, 3 / N)]  # supervised: start and end
    assert len(paths) == 3  # two seeds, and one


def test_a_run_with_one_task_has_no_others(tmp_path):
    folder = write_policy_run(tmp_path / "run", schedule=("add",))
    path = folder / "iterations.jsonl"
    lines = read_lines(path)
    for line in lines:
        line.get("tasks", {}).pop("subtract", None)
    write_lines(path, lines)
    (view,) = load_policies(load_views({"run": folder}))
    assert draw_divergence([view]) is None
    own, others, *_ = draw_gains([view]).axes
    assert (len(own.patches), len(others.patches)) == (1, 0)


def test_a_run_not_begun_has_no_pictures(tmp_path):
    folder = write_policy_run(tmp_path / "run")
    write_lines(folder / "iterations.jsonl", [])
    views = load_policies(load_views({"run": folder}))
    assert [draw(views) for draw in (draw_success, draw_signals, draw_gains, draw_divergence)] == [None] * 4


def test_the_mean_of_lines_is_as_long_as_all_of_them_and_has_their_gaps():
    nan = np.nan
    one = np.array([0.0, 2.0, 4.0]), np.array([0.0, 1.0, 0.0])
    other = np.array([0.0, 1.0, 3.0]), np.array([1.0, 1.0, 1.0])
    x, y = mean_line([one, other])
    assert (x.tolist(), y.tolist()) == ([0.0, 1.0, 2.0, 3.0], [0.5, 0.75, 1.0, 0.75])
    gap = np.array([0.0, 1.0, 1.5, 2.0, 3.0]), np.array([1.0, 1.0, nan, 3.0, 3.0])
    x, y = mean_line([gap, gap])
    np.testing.assert_array_equal(y, [1.0, 1.0, nan, 3.0, 3.0])


def test_a_seed_of_another_order_stays_out_of_the_curves(tmp_path):
    folder = write_policy_run(tmp_path / "run", seeds=(0, 1))
    for name in ("results.jsonl", "iterations.jsonl"):
        lines = read_lines(folder / name)
        for line in lines:
            if line["type"] == "header":
                line["tasks"]["1"] = ["warm start", "subtract", "add"]
            elif line.get("seed") == 1 and line["after"] > 0:
                line["trained"] = "subtract" if line["after"] == 1 else "add"
        write_lines(folder / name, lines)
    (view,) = load_policies(load_views({"run": folder}))
    assert list(view.phases) == [0]
    assert [entry["n_seeds"] for entry in view.entry["phases"]] == [2, 2, 2]

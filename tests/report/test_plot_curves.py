import numpy as np
from tests.report.conftest import joint_lines, stream_lines, write_log

from everlearn.report.plot_curves import draw_mean_curve, draw_task_curves
from everlearn.report.views import load_views

TASKS = ["a", "b", "c"]


def test_each_task_starts_where_it_was_learned(make_run):
    (view,) = load_views({"plain": make_run("plain", TASKS)})
    figure = draw_task_curves([view])
    assert [axes.get_title() for axes in figure.axes] == TASKS
    second = figure.axes[1].lines[0].get_ydata()
    np.testing.assert_array_equal(np.isnan(second), [True, False, False])
    assert second[1] == view.matrices[0].values[1, 1]


def test_the_mean_runs_over_the_tasks_learned_so_far(make_run):
    (view,) = load_views({"plain": make_run("plain", TASKS)})
    (axes,) = draw_mean_curve([view]).axes
    values = view.matrices[0].values
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [values[0, 0], values[1, :2].mean(), values[2].mean()])


def test_several_seeds_have_a_band_and_one_has_none(make_run):
    several, one = load_views({"several": make_run("several", TASKS, seeds=3), "one": make_run("one", TASKS)})
    assert len(draw_mean_curve([several]).axes[0].collections) == 1
    assert len(draw_mean_curve([one]).axes[0].collections) == 0


def test_joint_training_is_a_level(make_run, tmp_path):
    joint = write_log(tmp_path / "joint", joint_lines({0: TASKS}, 0.9, 60))
    views = load_views({"plain": make_run("plain", TASKS), "joint": joint})
    level = draw_mean_curve(views).axes[0].lines[1]
    assert list(level.get_xdata()) == [0, 1]
    assert set(level.get_ydata()) == {views[1].results["summary"]["average_accuracy"]["mean"]}


def test_joint_training_that_repeats_its_scores_is_a_level_too(tmp_path):
    lines = stream_lines({0: TASKS}, 0.0, 0.85, 20, {})
    lines[0] = {**lines[0], "recipe": {"strategies": [{"name": "joint"}]}}
    (view,) = load_views({"all at once": write_log(tmp_path, lines)})
    figure = draw_task_curves([view])
    for column, axes in enumerate(figure.axes):
        (level,) = axes.lines[:1]
        assert list(level.get_ydata()) == [view.matrices[0].values[-1, column]] * 2


def test_a_long_legend_leaves_the_panel_its_height(make_run):
    def panel_height(n_runs: int) -> float:
        figure = draw_mean_curve(load_views({f"method {i}": make_run(str(i), TASKS) for i in range(n_runs)}))
        figure.draw_without_rendering()
        return figure.axes[0].get_position().height * figure.get_figheight()

    assert panel_height(24) > 0.9 * panel_height(3)

import pytest
from tests.report.conftest import joint_lines, write_log

from everlearn.report.plot_scatter import draw_retention
from everlearn.report.views import load_views

TASKS = ["a", "b", "c"]


def test_dots_stand_at_stability_over_learning_accuracy(make_run):
    views = load_views({"plain": make_run("plain", TASKS, forget=0.5)})
    (axes,) = draw_retention(views).axes
    ((x, y),) = axes.collections[0].get_offsets()
    summary = views[0].results["summary"]
    assert (x, y) == pytest.approx((summary["learning_accuracy"]["mean"], summary["stability"]["mean"]))


def test_joint_training_is_the_measure_and_no_dot(make_run, tmp_path):
    joint = write_log(tmp_path / "joint", joint_lines({0: TASKS}, 0.9, 60))
    (axes,) = draw_retention(load_views({"plain": make_run("plain", TASKS), "joint": joint})).axes
    assert len(axes.collections) == 1
    assert "share of joint training" in axes.get_xlabel()


def test_a_larger_dot_keeps_more_bytes(make_run):
    runs = {"few": make_run("few", TASKS, kept=100), "many": make_run("many", TASKS, kept=1000)}
    (axes,) = draw_retention(load_views(runs)).axes
    sizes = [float(dots.get_sizes()[0]) for dots in axes.collections]  # drawn largest first
    assert sizes[0] > sizes[1]


def test_captions_do_not_overlap(make_run):
    runs = {f"method number {i}": make_run(str(i), TASKS, forget=0.2 + 0.01 * i, kept=1000 * i) for i in range(12)}
    figure = draw_retention(load_views(runs))
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert len(boxes) == 13
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_many_dots_have_numbers_whose_captions_stand_in_a_list_by_retention(make_run):
    runs = {f"method {i}": make_run(str(i), TASKS, forget=0.2 + 0.01 * i, kept=1000 * i) for i in range(13)}
    views = load_views(runs)
    dots, listed = draw_retention(views).axes
    assert {str(n) for n in range(1, 14)} <= {text.get_text() for text in dots.texts}
    lines = [text.get_text() for text in listed.texts]
    stability = {view.name: view.results["summary"]["stability"]["mean"] for view in views}
    wanted = sorted(runs, key=lambda name: -stability[name])
    assert lines[0::2] == [str(n) for n in range(1, 14)]
    assert [line.split(" (")[0] for line in lines[1::2]] == wanted


def test_nothing_to_show(make_run):
    assert draw_retention(load_views({"one": make_run("one", ["only"])})) is None

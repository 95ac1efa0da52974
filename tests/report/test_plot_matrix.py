from itertools import pairwise

from tests.report.conftest import joint_lines, write_log

from everlearn.report.plot_matrix import draw_matrices
from everlearn.report.views import load_views

TASKS = ["a", "b", "c"]


def test_one_panel_a_run_on_one_scale_with_every_value(make_run, tmp_path):
    joint = write_log(tmp_path / "joint", joint_lines({0: TASKS}, 0.9, 60))
    views = load_views({"plain": make_run("plain", TASKS), "joint": joint})
    figure = draw_matrices(views)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["plain", "joint"]
    assert {(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in panels} == {(0.0, 1.0)}
    written = [text.get_text() for text in panels[0].texts]
    values = [*views[0].matrices[0].baseline, *views[0].matrices[0].values.ravel()]
    assert written == [f"{value:.2f}" for value in values]


def test_ink_contrasts_with_the_cell(make_run):
    (panel, *_) = draw_matrices(load_views({"plain": make_run("plain", TASKS)})).axes
    ink = {float(text.get_text()): text.get_color() for text in panel.texts}
    assert ink[min(ink)] == "white"
    assert ink[max(ink)] == "black"


def test_labels_stay_inside_the_picture_and_apart(make_run):
    names = [f"dataset_with_a_long_name_{i}" for i in range(20)]
    figure = draw_matrices(load_views({"one": make_run("one", names, n=5), "two": make_run("two", names, n=5)}))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes[:2]:
        boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    right_of_first = figure.axes[0].get_window_extent(renderer).x1
    left_labels = [label.get_window_extent(renderer).x0 for label in figure.axes[1].get_yticklabels()]
    assert min(left_labels) > right_of_first

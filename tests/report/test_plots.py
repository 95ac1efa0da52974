import numpy as np
import pytest
from tests.report.conftest import joint_lines, stream_lines, write_log

from everlearn.report.plots import write_plots
from everlearn.report.views import load_views

TASKS = ["a", "b", "c"]


def test_every_picture_is_written(make_run, tmp_path):
    runs = {"plain": make_run("plain", TASKS), "joint": write_log(tmp_path / "j", joint_lines({0: TASKS}, 0.9, 60))}
    pictures = write_plots(load_views(runs), tmp_path)
    assert [picture.path.stem for picture in pictures] == ["matrices", "mean_curve", "task_curves", "retention", "cost"]
    for picture in pictures:
        assert picture.path.read_bytes().startswith(b"\x89PNG")


def test_one_task_has_no_retention(make_run, tmp_path):
    pictures = write_plots(load_views({"one": make_run("one", ["only"])}), tmp_path)
    assert "retention" not in [picture.path.stem for picture in pictures]


@pytest.mark.parametrize("cut", [1, 2, 9])
def test_a_stopped_run_is_drawn(tmp_path, cut):
    folder = write_log(tmp_path / "run", stream_lines({0: TASKS}, 0.2, 0.85, 20, {})[:cut])
    assert write_plots(load_views({"cut": folder}), tmp_path)


def test_scores_that_are_no_shares_are_drawn(make_run, tmp_path):
    (view,) = load_views({"plain": make_run("plain", TASKS)})
    for matrix in view.matrices:
        np.subtract(matrix.values, 5.0, out=matrix.values)
    assert write_plots([view], tmp_path)

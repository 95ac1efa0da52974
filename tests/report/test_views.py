import numpy as np
import pytest
from tests.report.conftest import joint_lines, stream_lines, write_log

from everlearn.errors import ConfigError, StateError
from everlearn.report.views import (
    axis_names,
    joint_scores,
    kept_bytes,
    load_views,
    mean_cost,
    mean_matrix,
    mean_over,
    plasticity_of,
)

TASKS = ["a", "b", "c"]


def test_no_run_and_a_missing_run_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="no run is named"):
        load_views({})
    with pytest.raises(StateError, match="can't be read"):
        load_views({"gone": tmp_path / "gone"})


def test_scores_and_cost_are_averaged_over_the_seeds(make_run):
    (view,) = load_views({"run": make_run("run", TASKS, seeds=3, ewc=900)})
    expected = np.mean([matrix.values for matrix in view.matrices], axis=0)
    np.testing.assert_allclose(mean_matrix(view), expected)
    assert mean_cost(view)["n_steps"] == 150
    assert kept_bytes(view) == {"ewc": 900}
    assert axis_names(view) == (TASKS, TASKS)


def test_mean_over_skips_what_was_not_measured():
    nan = np.nan
    found = mean_over([np.array([1.0, nan, nan]), np.array([3.0, 4.0, nan]), np.array([9.0])])
    np.testing.assert_array_equal(found, [2.0, 4.0, nan])


def test_different_orders_are_averaged_by_place(tmp_path):
    lines = stream_lines({0: TASKS, 1: TASKS[::-1]}, 0.2, 0.85, 20, {})
    (view,) = load_views({"run": write_log(tmp_path, lines)})
    assert not view.same_order
    assert axis_names(view)[0] == ["task 1", "task 2", "task 3"]


def test_an_unfinished_seed_is_shown_only_alone(tmp_path):
    lines = stream_lines({0: TASKS, 1: TASKS}, 0.2, 0.85, 20, {})
    (view,) = load_views({"run": write_log(tmp_path, lines[:-3])})
    assert [matrix.seed for matrix in view.started] == [0]


def test_plasticity_divides_by_joint_training(make_run, tmp_path):
    joint = write_log(tmp_path / "all", joint_lines({0: TASKS}, 0.9, 60))
    plain, together = load_views({"plain": make_run("plain", TASKS), "everything": joint})
    assert together.is_joint
    assert not plain.is_joint
    reference = joint_scores([plain, together])
    diagonal = np.diag(plain.matrices[0].values)
    assert plasticity_of(plain, reference) == pytest.approx(np.mean(diagonal / [reference[task] for task in TASKS]))
    assert plasticity_of(plain, {"a": 0.5}) is None
    assert joint_scores([plain]) == {}

import numpy as np
from tests.report.conftest import header_line, score_line, write_log

from everlearn.report.matrix import NEVER, build_matrix
from everlearn.report.records import read_run


def build(folder, schedule, cells):
    """Return the matrix of cells (after, task, outcomes)."""
    lines = [score_line(0, after, None, task, outcomes) for after, task, outcomes in cells]
    return build_matrix(read_run(write_log(folder, [header_line({0: schedule}), *lines])), 0)


def test_rows_are_steps_and_columns_are_tasks(tmp_path):
    cells = [(-1, "a", [0, 0]), (0, "a", [1, 0]), (1, "a", [0, 0]), (1, "b", [1, 1, 1])]
    matrix = build(tmp_path, ["a", "b"], cells)
    np.testing.assert_array_equal(matrix.values, [[0.5, np.nan], [0.0, 1.0]])
    np.testing.assert_array_equal(matrix.n, [[2, np.nan], [2, 3]])
    np.testing.assert_array_equal(matrix.baseline, [0.0, np.nan])
    assert matrix.learned_at == (0, 1)
    assert matrix.complete
    assert matrix.outcomes[1, "b"].tolist() == [1, 1, 1]
    assert matrix.metric_names == {"a": "accuracy", "b": "accuracy"}


def test_repeated_rounds_keep_one_column_per_task(tmp_path):
    cells = [(step, task, [1]) for step in range(4) for task in "ab"]
    matrix = build(tmp_path, ["b", "a", "b", "a"], cells)
    assert matrix.tasks == ("b", "a")
    assert matrix.learned_at == (0, 1)
    assert matrix.values.shape == (4, 2)


def test_a_half_scored_step_is_not_the_last(tmp_path):
    matrix = build(tmp_path, ["a", "b", "c"], [(0, "a", [1]), (1, "a", [0])])
    assert matrix.last_step == 0
    assert not matrix.complete
    assert matrix.learned.tolist() == [0]
    assert matrix.tasks == ("a", "b", "c")


def test_nothing_scored_yet(tmp_path):
    matrix = build(tmp_path, ["a", "b"], [])
    assert matrix.last_step == -1
    assert matrix.learned.size == 0


def test_joint_training_teaches_every_task_in_one_step(tmp_path):
    matrix = build(tmp_path, ["joint"], [(-1, "a", [0]), (0, "a", [1]), (0, "b", [1])])
    assert matrix.tasks == ("a", "b")
    assert matrix.learned_at == (0, 0)
    assert matrix.complete


def test_a_step_cut_before_its_own_score_is_not_joint_training(tmp_path):
    matrix = build(tmp_path, ["a", "b"], [(0, "a", [1]), (1, "a", [1]), (1, "probe", [1])])
    assert matrix.tasks == ("a", "b", "probe")
    assert matrix.learned_at == (0, 1, NEVER)
    assert matrix.last_step == 0


def test_a_task_that_is_only_scored_has_a_column_and_no_step(tmp_path):
    cells = [(-1, "probe", [1]), (0, "a", [1]), (0, "probe", [0]), (1, "a", [1]), (1, "b", [1]), (1, "probe", [0])]
    matrix = build(tmp_path, ["a", "b"], cells)
    assert matrix.tasks == ("a", "b", "probe")
    assert matrix.learned_at == (0, 1, NEVER)
    assert matrix.learned.tolist() == [0, 1]

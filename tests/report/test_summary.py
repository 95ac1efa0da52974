import math

import numpy as np
import pytest
from tests.report.conftest import header_line, score_line, write_log

from everlearn.evaluation.stats import Interval, combine_intervals, mean_interval, paired_difference, seeds_interval
from everlearn.report.matrix import build_matrix
from everlearn.report.records import read_run
from everlearn.report.summary import STREAM_METRICS, stream_metrics, summarise

RIGHT = [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
WORSE = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]


def lines_of(seed, drop=WORSE):
    """Two tasks: a falls from RIGHT to `drop` while b is learned; a and b were scored before training."""
    cells = [(-1, "a", [0] * 10), (-1, "b", WORSE), (0, "a", RIGHT), (0, "b", RIGHT), (1, "a", drop), (1, "b", RIGHT)]
    return [score_line(seed, after, None, task, outcomes) for after, task, outcomes in cells]


def matrices_of(folder, *drops):
    lines = [line for seed, drop in enumerate(drops) for line in lines_of(seed, drop)]
    run = read_run(write_log(folder, [header_line({seed: ["a", "b"] for seed in range(len(drops))}), *lines]))
    return [build_matrix(run, seed) for seed in run.schedule]


def test_values_and_paired_intervals(tmp_path):
    (matrix,) = matrices_of(tmp_path, WORSE)
    found = stream_metrics(matrix)
    paired = paired_difference(RIGHT, WORSE)
    change = found["backward_transfer"]
    assert (change.value, change.low, change.high) == pytest.approx((-0.2, paired.low, paired.high))
    assert found["forgetting"].value == pytest.approx(0.2)
    assert found["forward_transfer"].value == pytest.approx(0.2)
    assert found["average_accuracy"].value == pytest.approx(0.7)
    assert found["learning_accuracy"].value == pytest.approx(0.8)
    assert found["stability"].value == pytest.approx(0.75)
    assert math.isnan(found["stability"].low)


def test_pairing_is_narrower_than_the_recorded_bounds(tmp_path):
    (matrix,) = matrices_of(tmp_path, [*RIGHT[:7], 0, 0, 0])
    unpaired = type(matrix)(**{**vars(matrix), "outcomes": {}, "low": matrix.low - 0.2, "high": matrix.high + 0.2})
    paired, loose = stream_metrics(matrix)["backward_transfer"], stream_metrics(unpaired)["backward_transfer"]
    assert paired.value == pytest.approx(loose.value)
    assert paired.high - paired.low < loose.high - loose.low


def test_a_score_that_is_no_mean_of_its_items_uses_the_recorded_bounds(tmp_path):
    (matrix,) = matrices_of(tmp_path, WORSE)
    shifted = type(matrix)(**{**vars(matrix), "values": matrix.values * 0.9})
    change = stream_metrics(shifted)["backward_transfer"]
    assert change.value == pytest.approx(-0.18)
    assert (change.low, change.high) != pytest.approx(
        (paired_difference(RIGHT, WORSE).low, paired_difference(RIGHT, WORSE).high)
    )


def test_levels_join_the_intervals_of_the_cells(tmp_path):
    (matrix,) = matrices_of(tmp_path, WORSE)
    found = stream_metrics(matrix)["average_accuracy"]
    half = 0.1 * math.sqrt(2) / 2  # the log's bounds are ± 0.1
    assert (found.low, found.high) == pytest.approx((0.7 - half, 0.7 + half))


def test_unscored_tasks_to_come_leave_forward_transfer_unknown(tmp_path):
    lines = [line for line in lines_of(0) if (line["after"], line["task"]) != (0, "b")]
    run = read_run(write_log(tmp_path, [header_line({0: ["a", "b"]}), *lines]))
    found = stream_metrics(build_matrix(run, 0))
    assert found["forward_transfer"] is None
    assert found["backward_transfer"].value == pytest.approx(-0.2)


def test_a_run_without_scores_knows_nothing(tmp_path):
    run = read_run(write_log(tmp_path, [header_line({0: ["a"]})]))
    assert stream_metrics(build_matrix(run, 0)) == dict.fromkeys(STREAM_METRICS)


def test_forgetting_allows_for_the_best_step_having_been_picked(tmp_path):
    cells = [(0, "a", RIGHT), (1, "a", WORSE), (1, "b", RIGHT), (2, "a", WORSE), (2, "b", RIGHT), (2, "c", RIGHT)]
    lines = [score_line(0, after, None, task, outcomes) for after, task, outcomes in cells]
    run = read_run(write_log(tmp_path, [header_line({0: ["a", "b", "c"]}), *lines]))
    found = stream_metrics(build_matrix(run, 0))["forgetting"]
    assert found.value == pytest.approx(0.1)
    drops = [paired_difference(WORSE, start, level=0.975) for start in (RIGHT, WORSE)]
    ends = [max(drop.low for drop in drops), max(drop.high for drop in drops)]
    b = paired_difference(RIGHT, RIGHT)
    wanted = combine_intervals([Interval(0.2, *ends), Interval(b.difference, b.low, b.high)])
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_several_seeds_give_an_interval_over_seeds_and_items(tmp_path):
    drops = [WORSE, RIGHT, [0] * 10]
    matrices = matrices_of(tmp_path, *drops)
    found = {matrix.seed: stream_metrics(matrix) for matrix in matrices}
    entry = summarise(matrices, found)["backward_transfer"]
    expected = seeds_interval([found[seed]["backward_transfer"] for seed in range(3)], (-1.0, 1.0))
    assert (entry["mean"], entry["low"], entry["high"]) == pytest.approx((expected.value, -1.0, expected.high))
    assert expected.high > mean_interval([-0.2, 0.0, -0.8]).high
    assert (entry["n_seeds"], entry["over"]) == (3, "seeds and items")
    stability = summarise(matrices, found)["stability"]  # 0.75, 1, 0
    assert (stability["low"], stability["over"]) == (pytest.approx(mean_interval([0.75, 1.0, 0.0]).low), "seeds")


def test_seeds_that_coincide_are_as_sure_as_their_items_and_no_score_leaves_its_range(tmp_path):
    matrices = matrices_of(tmp_path, WORSE, WORSE)
    found = {matrix.seed: stream_metrics(matrix) for matrix in matrices}
    summary = summarise(matrices, found)
    one = found[0]["average_accuracy"]
    entry = summary["average_accuracy"]
    assert (entry["low"], entry["high"]) == pytest.approx((one.low, one.high))
    assert math.isnan(summary["stability"]["low"])
    far = summarise(
        *(lambda m: (m, {one.seed: stream_metrics(one) for one in m}))(matrices_of(tmp_path, RIGHT, [0] * 10))
    )
    assert all(0 <= far[name]["low"] <= far[name]["high"] <= 1 for name in ("average_accuracy", "learning_accuracy"))
    assert all(-1 <= far[name]["low"] <= far[name]["high"] <= 1 for name in ("backward_transfer", "forgetting"))


def test_unfinished_seeds_stay_out_where_others_are_complete(tmp_path):
    lines = [*lines_of(0), *lines_of(1)[:3]]
    run = read_run(write_log(tmp_path, [header_line({0: ["a", "b"], 1: ["a", "b"]}), *lines]))
    matrices = [build_matrix(run, seed) for seed in (0, 1)]
    entry = summarise(matrices, {matrix.seed: stream_metrics(matrix) for matrix in matrices})["average_accuracy"]
    assert (entry["n_seeds"], entry["over"]) == (1, "items")
    assert entry["mean"] == pytest.approx(0.7)


def test_the_interval_of_backward_transfer_covers_over_new_items():
    """300 runs of 4 tasks that lose 0.1 on 60 items: the interval holds the true mean about 95 times in 100."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        pairs = [paired_difference(one < 0.8, one < 0.7) for one in rng.random((4, 60))]
        found = combine_intervals([Interval(pair.difference, pair.low, pair.high) for pair in pairs])
        covered += found.low <= -0.1 <= found.high
    assert 0.91 <= covered / 300 <= 0.99

"""The numbers of an online run, against its log by hand."""

import pytest

from everlearn.errors import StateError
from everlearn.evaluation.stats import Interval, paired_difference, seeds_interval, wilson_interval
from everlearn.report.online_results import online_results, read_online_run
from support.online import write_online_log


def test_one_seed_has_intervals_over_the_held_out_problems(tmp_path):
    outcomes = [[0, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1]]
    write_online_log(tmp_path, {0: outcomes})
    results = online_results(read_online_run(tmp_path))
    shares = {name: results[name]["value"] for name in ("initial_accuracy", "final_accuracy", "peak_accuracy")}
    assert shares == {"initial_accuracy": 0.25, "final_accuracy": 0.5, "peak_accuracy": 0.75}
    wanted = wilson_interval(2, 4)
    assert (results["final_accuracy"]["low"], results["final_accuracy"]["high"]) == (wanted.low, wanted.high)
    change = paired_difference(outcomes[0], outcomes[-1])
    assert results["improvement"]["value"] == 0.25
    assert results["improvement"]["low"] == change.low
    assert results["by_type"]["a"]["initial"]["value"] == 0.0
    assert results["by_type"]["a"]["final"]["value"] == 0.5
    assert results["by_difficulty"]["2"]["final"]["n"] == 2
    assert [point["episode"] for point in results["curve"]] == [0, 2, 4]


def test_several_seeds_have_intervals_over_the_seeds(tmp_path):
    write_online_log(tmp_path, {0: [[0, 0, 0, 0], [1, 1, 1, 1]], 1: [[0, 0, 0, 0], [1, 1, 0, 0]]})
    results = online_results(read_online_run(tmp_path))
    final = results["final_accuracy"]
    assert (final["value"], final["low"], final["high"]) == (0.75, 0.0, 1.0)  # 12.7 times 0.25 to both sides, cut
    assert (final["n"], final["n_seeds"]) == (4, 2)
    changes = [paired_difference([0] * 4, right) for right in ([1, 1, 1, 1], [1, 1, 0, 0])]
    wanted = seeds_interval([Interval(one.difference, one.low, one.high) for one in changes], (-1.0, 1.0))
    assert (results["improvement"]["low"], results["improvement"]["high"]) == (wanted.low, 1.0)


def test_the_peak_s_interval_allows_for_its_having_been_picked(tmp_path):
    write_online_log(tmp_path, {0: [[0, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 1]]})
    peak = online_results(read_online_run(tmp_path))["peak_accuracy"]
    wanted = wilson_interval(3, 4, 1 - 0.05 / 4)
    assert (peak["value"], peak["low"], peak["high"]) == (0.75, wanted.low, wanted.high)
    assert peak["low"] < wilson_interval(3, 4).low


def test_what_is_lost_between_scorings_and_what_a_step_teaches_at_once(tmp_path):
    write_online_log(tmp_path, {0: [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]]})
    (entry,) = online_results(read_online_run(tmp_path))["seeds"]
    assert entry["lost_early"]["value"] == 0.5  # of two right, one wrong at the next scoring
    assert entry["lost_late"]["value"] == 0.5
    assert (entry["lost_early"]["n"], entry["lost_late"]["n"]) == (2, 2)
    assert entry["instant_learning"]["value"] == 0.5  # every second episode, see write_online_log
    assert entry["episodes_right_before"]["value"] == 0.5


def test_what_is_lost_again_and_again_is_one_item(tmp_path):
    write_online_log(tmp_path, {0: [[1, 1, 0, 0], [0, 1, 0, 0]] * 10})
    (entry,) = online_results(read_online_run(tmp_path))["seeds"]
    wanted = wilson_interval(2 / 3, 2)  # of 15 right answers 5 were lost, all of them on two problems
    assert entry["lost_early"]["value"] == pytest.approx(1 / 3)
    assert (entry["lost_early"]["low"], entry["lost_early"]["n"]) == (pytest.approx(wanted.low), 2)


def test_types_that_come_one_after_another_have_curves_and_a_backward_transfer(tmp_path):
    outcomes = [[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]  # items are of the types a, b, a, b
    write_online_log(tmp_path / "apart", {0: outcomes, 1: outcomes}, types="aabb")
    results = online_results(read_online_run(tmp_path / "apart"))
    assert [point["value"] for point in results["by_type"]["a"]["curve"]] == [0.0, 1.0, 0.5]
    assert [point["episode"] for point in results["by_type"]["b"]["curve"]] == [0, 2, 4]
    assert results["backward_transfer"]["value"] == -0.5  # type a, from 1.0 after its own two episodes
    (entry, _) = results["seeds"]
    change = paired_difference([1, 1], [1, 0])
    assert (entry["backward_transfer"]["low"], entry["backward_transfer"]["n"]) == (change.low, 2)
    for types in ("ab", "a", "aabba"):
        write_online_log(tmp_path / types, {0: [*outcomes, outcomes[0]]}, types=types)
        assert online_results(read_online_run(tmp_path / types))["backward_transfer"] is None


def test_a_run_under_way_is_not_complete(tmp_path):
    write_online_log(tmp_path, {0: [[0, 0, 0, 0], [1, 1, 1, 1]]}, ended=False)
    assert not online_results(read_online_run(tmp_path))["complete"]


def test_damage_is_named(tmp_path):
    with pytest.raises(StateError, match=r"evaluations.jsonl: can't be read"):
        read_online_run(tmp_path)
    (tmp_path / "evaluations.jsonl").write_text('{"type": "evaluation"}\n')
    with pytest.raises(StateError, match="begins with no header"):
        read_online_run(tmp_path)
    (tmp_path / "evaluations.jsonl").write_text("")
    with pytest.raises(StateError, match="is empty"):
        read_online_run(tmp_path)

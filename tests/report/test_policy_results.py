"""What each learning step of a run by reinforcement came to, against its log by hand."""

import pytest

from everlearn.evaluation.stats import Interval, combine_intervals, paired_difference, seeds_interval, wilson_interval
from everlearn.report.matrix import build_matrix
from everlearn.report.policy_records import read_policy
from everlearn.report.policy_results import phases_of, policy_results
from everlearn.report.records import read_run
from support.policy_logs import N, evaluation, outcomes, read_lines, write_lines, write_policy_run


def results_of(folder):
    run = read_run(folder)
    return policy_results(run, read_policy(run))


def gain_of(before, after):
    change = paired_difference(outcomes(before), outcomes(after))
    return {"mean": change.difference, "low": change.low, "high": change.high}


def test_a_step_has_its_own_start_its_end_and_what_became_of_the_others(tmp_path):
    results = results_of(write_policy_run(tmp_path / "run"))
    warm, add, subtract = results["reinforcement"]["phases"]
    assert [(one["name"], one["warm_start"]) for one in (warm, add, subtract)] == [
        ("warm start", True), ("add", False), ("subtract", False),
    ]  # fmt: skip
    wilson = wilson_interval(5, N)
    assert add["greedy"]["start"] == {"mean": 0.25, "low": wilson.low, "high": wilson.high}
    assert add["greedy"]["gain"] == pytest.approx(gain_of(5, 13))
    assert add["sampled"]["gain"] == pytest.approx(gain_of(3, 11))
    assert add["greedy"]["others"]["gain"] == pytest.approx(gain_of(5, 3))
    assert subtract["greedy"]["start"]["mean"] == pytest.approx(3 / N)  # its own, not the run's
    assert subtract["by_task"]["add"]["greedy"]["gain"] == pytest.approx(gain_of(13, 11))
    assert (add["n"], add["n_iterations"], add["n_answers"], add["stopped"]) == (N, 3, 24, ["done"])
    assert add["seconds"] == {"draw": 6.0, "judge": 1.5, "learn": 3.0}
    end = add["at_end"]
    assert (end["signal"], end["kl_to_start"], end["weight_change_to_start"]) == (0.5, 0.2, 0.02)
    assert (end["weight_change"], end["dormant"]) == (0.03, 0.1)
    assert end["entropy"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert results["complete"]
    assert results["summary"]["average_accuracy"]["mean"] == pytest.approx(11 / N)


def test_a_warm_start_over_all_tasks_is_the_mean_of_their_gains(tmp_path):
    warm = results_of(write_policy_run(tmp_path / "run"))["reinforcement"]["phases"][0]
    assert (warm["tasks"], warm["n"], warm["greedy"]["others"]) == (["add", "subtract"], 2 * N, None)
    one = paired_difference(outcomes(2), outcomes(5))
    both = combine_intervals([Interval(one.difference, one.low, one.high)] * 2)
    assert warm["greedy"]["gain"] == pytest.approx({"mean": both.value, "low": both.low, "high": both.high})
    assert (warm["n_iterations"], warm["at_end"]["signal"], warm["at_end"]["kl_to_start"]) == (0, None, None)


def test_a_warm_start_of_a_task_is_its_own(tmp_path):
    schedule = ("warm start of add", "add", "warm start of subtract", "subtract")
    phases = results_of(write_policy_run(tmp_path / "run", schedule=schedule))["reinforcement"]["phases"]
    assert [(one["tasks"], one["warm_start"]) for one in phases] == [
        (["add"], True), (["add"], False), (["subtract"], True), (["subtract"], False),
    ]  # fmt: skip
    assert phases[2]["greedy"]["others"]["start"]["mean"] == pytest.approx(13 / N)


def test_a_task_that_is_called_a_warm_start_is_a_task(tmp_path):
    folder = write_policy_run(tmp_path / "run", schedule=("add",))
    for name in ("results.jsonl", "iterations.jsonl"):
        path = folder / name
        path.write_text(path.read_text().replace('"add"', '"warm starting"'))
    assert not results_of(folder)["reinforcement"]["phases"][0]["warm_start"]
    assert build_matrix(read_run(folder), 0).warm_starts == ()


def test_seeds_are_pooled_as_everywhere(tmp_path):
    folder = write_policy_run(tmp_path / "run", seeds=(0, 1))
    lines = read_lines(folder / "iterations.jsonl")
    at_end = lines.index(next(one for one in lines if one["seed"] == 1 and one["after"] == 1 and not one["iteration"]))
    lines[at_end]["tasks"]["add"]["greedy"] = outcomes(17)
    write_lines(folder / "iterations.jsonl", lines)
    entry = results_of(folder)["reinforcement"]
    changes = [paired_difference(outcomes(5), outcomes(n)) for n in (13, 17)]
    wanted = seeds_interval([Interval(one.difference, one.low, one.high) for one in changes], (-1.0, 1.0))
    gain = entry["phases"][1]["greedy"]["gain"]
    assert gain == pytest.approx({"mean": wanted.value, "low": wanted.low, "high": wanted.high})
    assert entry["phases"][1]["n_seeds"] == 2
    assert [one["phases"][1]["greedy"]["gain"]["mean"] for one in entry["seeds"]] == pytest.approx([0.4, 0.6])


def test_rounds_are_apart(tmp_path):
    schedule = ("warm start", "add", "subtract", "add", "subtract")
    phases = results_of(write_policy_run(tmp_path / "run", schedule=schedule, gain=4))["reinforcement"]["phases"]
    assert [(one["name"], one["round"]) for one in phases[1:]] == [
        ("add", 1), ("subtract", 1), ("add", 2), ("subtract", 2),
    ]  # fmt: skip
    assert phases[3]["greedy"]["start"]["mean"] == pytest.approx(7 / N)


def test_a_run_killed_in_mid_task_is_shown_as_far_as_it_went(tmp_path):
    folder = write_policy_run(tmp_path / "run")
    path = folder / "iterations.jsonl"
    write_lines(path, [one for one in read_lines(path) if one["after"] < 2 or one["iteration"] in (1, 2)])
    log = folder / "results.jsonl"
    write_lines(log, [one for one in read_lines(log) if one.get("after", 0) < 2])
    results = results_of(folder)
    last = results["reinforcement"]["phases"][-1]
    assert (results["complete"], last["name"], last["complete"], last["stopped"]) == (False, "subtract", False, [None])
    assert last["n_iterations"] == 2
    assert last["greedy"]["end"]["mean"] == pytest.approx(3 / N)  # the measurement after iteration 2


def test_an_end_that_was_measured_twice_counts_once(tmp_path):
    folder = write_policy_run(tmp_path / "run", n_iterations=2)  # measured after iteration 2, and at the end
    run = read_run(folder)
    _, add, _ = phases_of(run, read_policy(run), 0)
    assert [one.iteration for one in add.measured] == [None]
    assert add.start.numbers["kl_to_start"] == 0.0  # where it counts from


def test_why_a_step_stopped_is_told(tmp_path):
    folder = write_policy_run(tmp_path / "run")
    path = folder / "iterations.jsonl"
    lines = [one | ({"stopped": "signal"} if one["iteration"] == 3 else {}) for one in read_lines(path)]
    write_lines(path, lines)
    assert [one["stopped"] for one in results_of(folder)["reinforcement"]["phases"]] == [
        ["done"],
        ["signal"],
        ["signal"],
    ]


def test_nothing_measured_yet_has_no_phases(tmp_path):
    folder = write_policy_run(tmp_path / "run")
    write_lines(folder / "iterations.jsonl", [evaluation(0, -1, None, {"add": 1, "subtract": 1})])
    assert results_of(folder)["reinforcement"] == {"phases": [], "seeds": [{"seed": 0, "phases": []}]}


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (("warm start", "add", "subtract"), -2 / N),  # not the three that the warm start gave
        (("warm start of add", "add", "warm start of subtract", "subtract"), 1 / N),  # 3 by the other's, less 2
        (("add", "subtract"), -2 / N),
    ],
)
def test_forward_transfer_leaves_warm_starts_out(tmp_path, schedule, wanted):
    summary = results_of(write_policy_run(tmp_path / "run", schedule=schedule))["summary"]
    assert summary["forward_transfer"]["mean"] == pytest.approx(wanted)
    assert summary["forward_transfer"]["low"] < wanted < summary["forward_transfer"]["high"]

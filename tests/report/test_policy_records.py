"""Reading iterations.jsonl: what a whole one says, and that damage is named."""

import pytest

from everlearn.errors import StateError
from everlearn.report.policy_records import read_policy
from everlearn.report.records import read_run
from support.policy_logs import evaluation, iteration, read_lines, write_lines, write_policy_run


@pytest.fixture
def folder(tmp_path):
    return write_policy_run(tmp_path / "run")


def test_a_log_is_read_by_seed(folder):
    log = read_policy(read_run(folder))
    assert [(one.after, one.number) for one in log.iterations[0]] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    first = log.iterations[0][0]
    assert (first.numbers["success"], first.numbers["entropy"], first.seconds["draw"]) == (0.1, 1.0, 2.0)
    assert "after" not in first.numbers
    assert [(one.after, one.iteration) for one in log.measured[0]] == [
        (-1, None), (0, None), (1, 2), (1, None), (2, 2), (2, None),
    ]  # fmt: skip
    assert log.measured[0][1].numbers == {"dormant": 0.1}
    assert sum(log.measured[0][0].tasks["add"].greedy) == 2


def test_the_later_line_holds_and_a_cut_one_stays_out(folder):
    path = folder / "iterations.jsonl"
    lines = read_lines(path)
    write_lines(path, [*lines, iteration(0, 2, "subtract", 3, reward=0.7)])
    with open(path, "a") as file:
        file.write('{"type": "iteration", "seed"')
    assert read_policy(read_run(folder)).iterations[0][-1].numbers["reward"] == 0.7


def test_what_was_not_measured_is_left_out(folder):
    line = iteration(0, 1, "add", 1, stopped="signal")
    del line["entropy"], line["seconds"]
    write_lines(folder / "iterations.jsonl", [line | {"reward/form": None}])
    (one,) = read_policy(read_run(folder)).iterations[0]
    assert "entropy" not in one.numbers
    assert "reward/form" not in one.numbers
    assert (one.seconds, one.stopped) == ({}, "signal")


BAD = {
    "unknown type": {"type": "episode"},
    "seed is not in the header": {"seed": 7},
    "after is outside the schedule of 3 steps": {"after": 3},
    "trained is not the step's task, 'add'": {"trained": "subtract"},
    "iteration is below 1": {"iteration": 0},
    "success is no share": {"success": 1.5},
    "signal has a wrong type": {"signal": "half"},
    "entropy is not finite": {"entropy": float("nan")},
    "seconds holds something that is no finite number": {"seconds": {"draw": "long"}},
}


@pytest.mark.parametrize("what", BAD)
def test_a_damaged_iteration_is_named(folder, what):
    write_lines(folder / "iterations.jsonl", [iteration(0, 1, "add", 1), iteration(0, 1, "add", 2) | BAD[what]])
    with pytest.raises(StateError, match=f"iterations.jsonl, line 2: {what}"):
        read_policy(read_run(folder))


def test_a_missing_number_is_named(folder):
    line = iteration(0, 1, "add", 1)
    del line["signal"]
    write_lines(folder / "iterations.jsonl", [line])
    with pytest.raises(StateError, match="line 1: signal is missing"):
        read_policy(read_run(folder))


def test_a_damaged_measurement_is_named(folder):
    path, whole = folder / "iterations.jsonl", evaluation(0, -1, None, {"add": 1, "subtract": 2})
    other = evaluation(0, 0, "warm start", {"add": 1, "subtract": 2})
    wrong = {
        "tasks names none": {"tasks": {}},
        "tasks lacks some that were measured before": {"tasks": {"add": whole["tasks"]["add"]}},
        "task 'add': holds other problems than before, which were 20": {
            "tasks": whole["tasks"] | {"add": whole["tasks"]["add"] | {"sampled": [1.0]}}
        },
        "task 'add': greedy holds no shares from 0 to 1": {
            "tasks": whole["tasks"] | {"add": whole["tasks"]["add"] | {"greedy": [2.0] * 20}}
        },
        "kl_to_start has a wrong type": {"kl_to_start": "far"},
    }
    for what, change in wrong.items():
        write_lines(path, [whole, other | change])
        with pytest.raises(StateError, match=f"line 2.*{what}"):
            read_policy(read_run(folder))


def test_a_missing_file_is_named(folder):
    (folder / "iterations.jsonl").unlink()
    with pytest.raises(StateError, match=r"iterations.jsonl: can't be read"):
        read_policy(read_run(folder))

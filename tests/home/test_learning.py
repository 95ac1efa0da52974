"""Learning in a home: killed at any moment it leaves a home that opens, and goes on to the same end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from everlearn.errors import Paused, StateError
from everlearn.home import Gate, Home
from everlearn.home.learning import report_of, settle_published
from everlearn.home.store import Store
from everlearn.runs import Listener
from everlearn.types import Score, Task
from support.home import rows

THIRD = (rows(("one", "two"), 16), rows(("one", "two"), 6, 40))


class InterruptAt(Listener):
    """Sends this process SIGINT at a step, as Ctrl-C does."""

    def __init__(self, step: int):
        self.at = step

    def step(self, done: int, loss: float) -> None:
        if done == self.at:
            os.kill(os.getpid(), signal.SIGINT)


class Steps(Listener):
    """Counts where training begins and what is scored."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.scored_tasks: list[str] = []

    def training(self, task: Task, n_steps: int, done: int) -> None:
        self.begun.append(done)

    def scored(self, score: Score) -> None:
        self.scored_tasks.append(score.task)


def test_killed_at_any_moment(home: Home, tmp_path: Path) -> None:
    files = []
    for name, content in zip(("train", "eval"), THIRD, strict=True):
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in content))
    command = [sys.executable, str(Path(__file__).with_name("killing.py")), str(home.path), *map(str, files)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    cases = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
    expected = cases[0]["end"]
    assert (expected["current"], expected["pending"], expected["leftovers"], expected["problems"]) == (3, False, [], [])
    for case in cases[1:]:
        assert case["end"] == expected, case["case"]
    at_writes = cases[2:]
    assert all(case["killed"] for case in at_writes)
    assert {case["current"] for case in at_writes} == {2, 3}  # the old or the new one


def test_interrupt_pauses_and_resume_ends_the_same(home: Home, made_home: Path, tmp_path: Path) -> None:
    paused = Home.open(home.path, InterruptAt(3))
    with pytest.raises(Paused, match=str(home.path)):
        paused.learn("third", *THIRD, gate=Gate(1.0))
    assert home.current == 2
    with pytest.raises(StateError, match=r"'third' was begun and not finished.*everlearn resume.*--discard-pending"):
        home.learn("fourth", *THIRD)
    steps = Steps()
    report = Home.open(home.path, steps).resume()
    assert (steps.begun, report.version, report.status) == ([3], 3, "promoted")
    assert steps.scored_tasks == ["colours", "animals", "third"]
    weights = Store(home.path).state(3)["weights"]
    again = Home.open(home.path)
    again.rollback(2)
    assert weights.keys() == Store(home.path).state(3)["weights"].keys()
    with pytest.raises(StateError, match="there is nothing to go on with"):
        again.resume()


def test_discarded_learning_leaves_only_a_line_in_the_log(home: Home) -> None:
    with pytest.raises(Paused):
        Home.open(home.path, InterruptAt(2)).learn("third", *THIRD)
    report = home.learn("third", *THIRD, gate=Gate(1.0), discard_pending=True)
    assert (report.version, home.current) == (3, 3)
    assert [event["event"] for event in home.log()[-2:]] == ["discard", "learn"]


def test_scores_that_are_kept_are_not_measured_again(home: Home) -> None:
    steps = Steps()
    Home.open(home.path, steps).learn("third", *THIRD, gate=Gate(1.0))
    assert steps.scored_tasks == ["third", "colours", "animals", "third"]


def test_report_is_read_back_and_settling_twice_does_no_harm(home: Home) -> None:
    report = home.learn("third", *THIRD, gate=Gate(1.0))
    store = Store(home.path)
    assert report_of(store, 3) == report
    assert not settle_published(store)
    compared = [(verdict.change.task, verdict.version) for verdict in report.gate.verdicts]
    assert compared == [("colours", 2), ("colours", 1), ("animals", 2)]  # version 2 had lost of colours
    assert (report.score.task, report.score.n, report.gained.n) == ("third", 6, 6)
    assert report.cost["n_steps"] == 4


def test_learning_more_of_a_task_keeps_its_items_and_gates_it(home: Home) -> None:
    more = [*rows(("red", "green"), 8, 50), *rows(("red", "green"), 4, 30)[:2]]
    other_answer = {"text": rows(("red", "green"), 1, 32)[0]["text"], "label": "green"}
    report = home.learn("colours", rows(("red", "green"), 8, 12), [*more, other_answer], gate=Gate(1.0))
    assert [verdict.change.n for verdict in report.gate.verdicts] == [16, 8, 8]  # the best before: on items of both
    assert "1 evaluation items were there already with another answer" in report.notes[0]
    assert home.versions()[3].learned == ("colours", "animals")
    assert len(list((home.path / "tasks" / "colours").glob("evaluation-*.jsonl"))) == 2
    assert home.diff(1, 3).changes[1].n == 16

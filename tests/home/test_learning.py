"""Learning in a home: killed at any moment it leaves a home that opens, and goes on to the same end."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from everlearn.config import CheckpointConfig
from everlearn.errors import ModelError, Paused, StateError, TrainingError
from everlearn.home import Gate, Home
from everlearn.home.comparing import find_problems
from everlearn.home.learning import report_of, settle_published
from everlearn.home.store import Store
from everlearn.home.views import outcome_sentence
from everlearn.listener import Listener
from everlearn.types import Score, Task
from support.home import end_of, rows

THIRD = (rows(("one", "two"), 16), rows(("one", "two"), 6, 40))
TRAIN = "learners.sft.SupervisedLearner.train"
ON_DISK = [{"name": "replay", "capacity": 8, "on_disk": True}]


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
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=300, env=found, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cases = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
    expected = cases[0]["end"]
    assert (expected["current"], expected["pending"], expected["leftovers"], expected["problems"]) == (3, False, [], [])
    assert [case["case"] for case in cases] == ["whole", "random"]
    assert cases[1]["end"] == expected


@pytest.fixture
def moments(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[Path]]:
    """Return a function that does some work on the home and returns copies of it: for each state that its files go
    through the last one, with all that is half-written beside it."""

    def copies(work: Callable[[], Any]) -> list[Path]:
        found: dict[tuple, Path] = {}

        def copy() -> None:
            files = sorted(path for path in home.path.rglob("*") if path.is_file() and path.name != "lock")
            state = tuple((path, path.read_bytes()) for path in files if ".tmp" not in str(path))
            with patch.context() as unpatched:
                for name, real in reals.items():
                    unpatched.setattr(os, name, real)
                folder = found.setdefault(state, tmp_path / "moments" / f"{len(found):04d}" / "home")
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(home.path, folder)

        def before(real: Callable) -> Callable:
            def call(*arguments: Any, **named: Any) -> Any:
                copy()
                return real(*arguments, **named)

            return call

        with monkeypatch.context() as patch:
            reals = {name: getattr(os, name) for name in ("rename", "replace", "unlink", "rmdir")}
            for name, real in reals.items():
                patch.setattr(os, name, before(real))
            work()
        return list(found.values())

    return copies


def test_a_crash_before_any_change_on_the_disk(home: Home, moments: Callable, tmp_path: Path) -> None:
    """Every state that the disk goes through in a learning leads to the same end."""

    def learn(one: Home) -> None:
        options = {"learner": {"epochs": 1}, "checkpoint": CheckpointConfig(every_s=None, every_steps=2)}
        one.learn("third", *THIRD, gate=Gate(1.0), strategies=ON_DISK, **options)

    disks = moments(lambda: learn(home))
    wanted = end_of(home.path)
    assert (wanted["current"], wanted["problems"], wanted["leftovers"]) == (3, [], [])
    befores = 0
    for disk in disks:
        one = Home.open(disk)
        befores += one.current == 2
        if one.current == 2 and (disk / "pending").exists():
            one.resume()
        elif one.current == 2:
            learn(one)
        with one._store.changing():
            pass  # whatever changes the home next clears away what is left over
        assert end_of(disk) == wanted, disk
        assert find_problems(one._versions(), one._fingerprint) == []
        shutil.rmtree(disk.parent)
    assert len(disks) > befores > 10


def test_a_crash_while_items_are_taken_out(home: Home, moments: Callable) -> None:
    items = rows(("red", "green"), 2, 30)
    for disk in moments(lambda: home.retire("colours", items)):
        one = Home.open(disk)
        n_items = len(one._versions().tasks["colours"].evaluation)
        assert n_items in (6, 8)
        assert one.check().sound
        if n_items == 8:
            one.retire("colours", items)
        assert len(Home.open(disk)._versions().tasks["colours"].evaluation) == 6


def failing(where: str, error: Exception, work: Callable[[], Any]) -> str:
    """Let work fail at a place, and return what is then said."""

    def fail(*arguments: object, **named: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Exception) as caught:  # noqa: PT011, PT012
        patch.setattr(where, fail)
        work()
    return " ".join([type(caught.value).__name__, str(caught.value), *vars(caught.value).get("__notes__", ())])


@pytest.mark.parametrize(
    ("where", "error", "said", "reason"),
    [
        ("strategies.replay.Replay.end_task", KeyError("rows"), "KeyError 'rows'", "KeyError: 'rows'"),
        (TRAIN, TrainingError("loss: is NaN."), "TrainingError loss: is NaN.", "loss: is NaN."),
        (TRAIN, MemoryError(), "memory ran out while learning. Got 'MemoryError'", "MemoryError"),
        (TRAIN, torch.OutOfMemoryError("tried\n9 GiB"), "Got 'tried 9 GiB'", "OutOfMemoryError: tried 9 GiB"),
    ],
)
def test_a_learning_that_can_not_go_on_says_so_and_how_to_drop_it(
    home: Home, where: str, error: Exception, said: str, reason: str
) -> None:
    ways = f"everlearn resume {home.path}; or drop it: everlearn learn {home.path} --discard-pending"
    work: Callable[[], Any] = lambda: home.learn("third", *THIRD, gate=Gate(1.0))  # noqa: E731
    for _ in range(2):  # the learning fails, then the resume
        message = failing(f"everlearn.{where}", error, work)
        assert said in message
        assert ways in message
        with pytest.raises(StateError) as refused:
            home.learn("fourth", *THIRD)
        assert f"learning 'third' failed ({reason.rstrip('.')}). Got 'version 3'." in str(refused.value)
        assert ways in str(refused.value)
        report = home.check()
        assert (report.sound, report.pending, report.failure) == (True, "third", reason)
        work = home.resume
    assert home.resume().status == "promoted"
    assert home.check().pending is None


def test_what_can_not_be_done_as_asked_leaves_nothing(home: Home) -> None:
    wrong = ModelError("model: can't be used.")
    said = failing(f"everlearn.{TRAIN}", wrong, lambda: home.learn("third", *THIRD))
    assert said == "ModelError model: can't be used."
    assert not (home.path / "pending").exists()
    # after the training, which is not thrown away
    said = failing("everlearn.home.learning._stage", wrong, lambda: home.learn("third", *THIRD, gate=Gate(1.0)))
    assert "--discard-pending" in said
    steps = Steps()
    assert Home.open(home.path, steps).resume().status == "promoted"
    assert steps.begun == []


def test_a_pending_that_can_not_be_read_names_the_way_out(home: Home) -> None:
    with pytest.raises(Paused):
        Home.open(home.path, InterruptAt(2)).learn("third", *THIRD)
    plan = home.path / "pending" / "plan.json"
    plan.write_text(plan.read_text()[:-20])
    for use in (home.resume, lambda: home.learn("fourth", *THIRD)):
        with pytest.raises(StateError, match=r"no plan can be read.*--discard-pending"):
            use()
    assert "no plan can be read" in home.check().problems[0]
    assert home.learn("third", *THIRD, gate=Gate(1.0), discard_pending=True).version == 3


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


def test_where_nothing_was_learned_the_current_version_stays(home: Home) -> None:
    """Labels at random over a tenth of a step: neither the score nor the likelihood rises beyond chance."""
    train, measured = rows(("one", "one"), 16), rows(("one", "one"), 24, 20)
    mixed = [{**row, "label": ("one", "two")[i // 2 % 2]} for i, row in enumerate(measured)]
    both = [{**row, "label": ("one", "two")[i % 2]} for i, row in enumerate(train)]
    learner = {"learning_rate": 1e-9, "epochs": 1}
    report = home.learn("guess", both, mixed, learner=learner, gate=Gate(1.0))
    assert (report.status, report.verdict, report.promoted) == ("refused", "nothing", False)
    assert home.current == 2
    assert home.log()[-1]["verdict"] == "nothing"
    kept = home.versions()[-1]
    assert (kept.verdict, kept.likelihood["n"], kept.cost["learning_rate"]) == ("nothing", 24, 1e-9)
    sentence = outcome_sentence(report, "h")
    assert sentence.startswith("Refused: nothing was learned; the current version stays. It took 1 epochs, 2 steps, at")
    assert "--force" in sentence
    forced = home.learn("guess", both, mixed, learner=learner, gate=Gate(1.0), force=True)
    assert (forced.status, home.current) == ("forced", forced.version)
    assert outcome_sentence(forced, "h") == f"Version {forced.version} is current by force, though nothing was learned."


def test_a_task_that_is_known_already_is_guarded_from_now_on(home: Home) -> None:
    more = [{**row, "text": f"it {row['text']}"} for row in rows(("red", "green"), 12)]
    report = home.learn("colours", more, learner={"learning_rate": 1e-9, "epochs": 1}, gate=Gate(1.0))
    assert (report.status, report.verdict) == ("promoted", "known")
    assert "colours was known already" in outcome_sentence(report, "h")

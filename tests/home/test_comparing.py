"""Comparing versions, drift, and finding damage."""

from pathlib import Path

from everlearn.home import Home


def test_diff_is_paired_on_the_same_items(home: Home) -> None:
    diff = home.diff(1, 2)
    assert [(change.task, change.n) for change in diff.changes] == [("animals", 8), ("colours", 8)]
    assert diff.unlearned == {"animals": [1]}
    change = diff.changes[0]
    assert change.difference == change.after - change.before == (change.n_gained - change.n_lost) / 8
    assert len([flip for flip in diff.flips if flip.task == "animals"]) == change.n_gained + change.n_lost
    for flip in diff.flips:
        assert flip.before != flip.after
        assert set(flip.row) >= {"text", "label"}
    back = home.diff(2, 1)
    assert [c.difference for c in back.changes] == [-c.difference for c in diff.changes]
    assert home.diff(2, 2).flips == ()


def test_diff_with_the_untouched_model(home: Home) -> None:
    diff = home.diff(0, 2)
    assert diff.unlearned == {"animals": [0], "colours": [0]}


def test_drift_is_measured_from_when_a_task_was_learned(home: Home) -> None:
    report = home.check()
    assert report.sound
    assert (report.version, report.pending) == (2, None)
    assert [(drift.change.task, drift.learned_in) for drift in report.drifts] == [("colours", 1), ("animals", 2)]
    kept = {change.task: change for change in home.diff(1, 2).changes}
    assert report.drifts[0].change == kept["colours"]
    assert report.drifts[1].change.difference == 0.0  # the same weights score the same


def test_untouched_home_is_sound(home: Home) -> None:
    home.rollback(0)
    report = home.check()
    assert (report.version, report.drifts, report.sound) == (0, (), True)


def test_every_damaged_file_is_reported(home: Home) -> None:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    home.diff(0, 1)
    damaged = [
        "versions/000001/state/tensors.safetensors",
        "versions/000002/scores/animals.json",
        "versions/000000/version.json",
        "tasks/colours/evaluation-000001.jsonl",
        "tasks/animals/task.json",
        "scores/000000/colours.json",
    ]
    for name in damaged:
        flip(home.path / name)
    (home.path / "log.jsonl").write_text("broken\n")
    (home.path / "current").write_text("{}")
    report = home.check()
    assert not report.sound
    for name in [*damaged, "log.jsonl", "current"]:
        assert [name for problem in report.problems if str(home.path / name) in problem], name
    assert len(report.problems) == len(damaged) + 2

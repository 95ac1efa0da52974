"""The files of a home: versions that don't change, one that is current, a log, and what a crash leaves."""

from pathlib import Path

import pytest

from everlearn.errors import StateError
from everlearn.files import read_sealed, write_sealed
from everlearn.home import Home
from everlearn.home.store import Store, event_of, files_in, now
from everlearn.types import Score


def test_versions_know_their_ancestors_and_files(home: Home) -> None:
    store = Store(home.path)
    assert store.numbers() == [0, 1, 2]
    assert [record.number for record in store.lineage(2)] == [2, 1, 0]
    assert store.version(2).learned == ("colours", "animals")
    assert store.state(0) is None
    assert set(store.version(1).files) == {
        "state/tensors.safetensors", "state/values.json", "trained.json", "scores/colours.json",
        "scores/answers/colours.json", "task.json", "evaluation.jsonl",
    }  # fmt: skip
    assert files_in(store.folder(1)).items() > store.version(1).files.items()
    assert {number: len(digests) for number, digests in store.trained(2).items()} == {1: 12, 2: 12}


def test_tasks_of_refused_attempts_alone_are_not_accepted(home: Home) -> None:
    store = Store(home.path)
    path = store.folder(2) / "version.json"
    write_sealed(path, {**read_sealed(path), "status": "refused"})
    assert store.accepted_tasks() == {"colours", "animals"}  # by force: it is current
    home.rollback(1)
    assert store.accepted_tasks() == {"colours"}
    path.write_text("{}")
    assert store.accepted_tasks() == {"colours"}


def test_unknown_version_is_one_sentence(home: Home) -> None:
    with pytest.raises(StateError, match=r"there is no such version\. Got 7\. Versions: 0, 1, 2"):
        Store(home.path).version(7)


def test_every_damaged_file_of_a_version_is_found(home: Home) -> None:
    store = Store(home.path)
    assert store.problems(2) == []
    for name in store.version(2).files:
        path = store.folder(2) / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert len(store.problems(2)) == 1
        assert name in store.problems(2)[0]
        path.unlink()
        assert "is missing" in store.problems(2)[0]
        path.write_bytes(whole)
    record = store.folder(2) / "version.json"
    record.write_text(record.read_text().replace("promoted", "refused"))
    assert "version.json: is damaged" in store.problems(2)[0]


def test_event_that_a_crash_kept_out_of_the_log_comes_in(home: Home) -> None:
    store = Store(home.path)
    log = store.path / "log.jsonl"
    before = log.read_bytes()
    store.set_current(1, event_of("rollback", 1, {}))
    log.write_bytes(before)  # the crash: `current` written, the log not
    with store.changing():
        pass
    assert store.events()[-1]["event"] == "rollback"
    n_events = len(store.events())
    with store.changing():
        pass
    assert len(store.events()) == n_events


def test_leftovers_are_cleared_and_nothing_else(home: Home) -> None:
    store = Store(home.path)
    kept = files_in(home.path)
    (home.path / ".current.77.tmp").write_text("half")
    (home.path / "versions" / ".000003.77.tmp").mkdir()
    (home.path / "tasks" / "colours" / ".task.json.77.tmp").write_text("half")
    with store.changing():
        pass
    assert {**files_in(home.path), "lock": ""} == {**kept, "lock": ""}


def test_damaged_current_is_one_sentence_that_rollback_mends(home: Home) -> None:
    (home.path / "current").write_text('{"version": 9}')
    with pytest.raises(StateError, match=r"names no version.*everlearn rollback"):
        Home.open(home.path).learn("x", [])
    home.rollback(1)
    assert home.current == 1


def test_a_score_counts_only_for_the_same_items_and_software(home: Home) -> None:
    store = Store(home.path)
    score = Score("colours", "accuracy", 0.5, 0.1, 0.9, 2, (1.0, 0.0), {"accuracy": 0.5})
    store.keep_score(home.path / "scores" / "000001", score, ["a", "b"], "here")
    assert store.score(1, "colours", ["a", "b"], "here") == score
    for items in (["a"], ["a", "c"], ["b", "a"], ["a", "b", "c"]):
        assert store.score(1, "colours", items, "here") is None
    assert store.score(1, "colours", ["a", "b"], "there") is None
    assert store.score(1, "colours", ["a", "b"], "here", stand_in=True) is None
    assert [kept.score.n for kept in store.kept(1, "colours")] == [2, 8]
    assert store.learned_score(1, "colours").n == 8


def test_a_score_without_names_of_its_items_is_read_and_not_taken_for_a_new_one(home: Home) -> None:
    store = Store(home.path)
    path = home.path / "versions" / "000001" / "scores" / "colours.json"
    value = read_sealed(path)
    items, where = value.pop("items"), value["measured_on"]
    write_sealed(path, value)
    assert store.kept(1, "colours")[0].items is None
    assert store.learned_score(1, "colours").n == 8
    assert store.score(1, "colours", items, where) is None


def test_time_is_utc(tmp_path: Path) -> None:
    assert now().endswith("Z")
    assert len(now()) == len("2026-01-01T00:00:00.000Z")

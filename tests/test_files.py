"""Sealed JSON, the log, the lock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from everlearn.errors import StateError
from everlearn.files import append_line, locked, read_lines, read_sealed, sha256_of, staged, write_sealed


def test_sealed_file_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_sealed(path, {"numbers": (1, 2.5, None), "text": "é", "nested": {"b": 1, "a": [True]}})
    assert read_sealed(path) == {"numbers": [1, 2.5, None], "text": "é", "nested": {"b": 1, "a": [True]}}
    path.write_text(path.read_text().replace("2.5", "2.6"))
    with pytest.raises(StateError, match=r"value\.json: is damaged"):
        read_sealed(path)
    path.write_text("[1]")
    with pytest.raises(StateError, match="is damaged"):
        read_sealed(path)
    path.write_text('{"a": 1')
    with pytest.raises(StateError, match="can't be read"):
        read_sealed(path)


def test_log_forgets_a_line_that_a_crash_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_line(path, {"n": 1})
    append_line(path, {"n": 2})
    with path.open("ab") as file:
        file.write(b'{"n": 3, "half')
    assert read_lines(path) == [{"n": 1}, {"n": 2}]
    append_line(path, {"n": 4})
    assert read_lines(path) == [{"n": 1}, {"n": 2}, {"n": 4}]
    path.write_bytes(b'{"n": 1}\nnonsense\n{"n": 2}\n')
    with pytest.raises(StateError, match=r"log\.jsonl: can't be read"):
        read_lines(path)


def test_lock_names_the_process_that_holds_it(tmp_path: Path) -> None:
    message = rf"another process is changing this home\. Got 'pid {os.getpid()}'"
    with locked(tmp_path / "lock"), pytest.raises(StateError, match=message), locked(tmp_path / "lock"):
        pass
    with locked(tmp_path / "lock"):
        pass


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = "import fcntl, os, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=False).returncode == 9
    with locked(tmp_path / "lock"):
        pass


def test_what_the_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"can't be written \(Not a directory\)"
    with pytest.raises(StateError, match=message), locked(tmp_path / "file" / "lock"):
        pass
    with pytest.raises(StateError, match=message):
        append_line(tmp_path / "file" / "log", {})


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"gone: can't be read \(No such file"):
        sha256_of(tmp_path / "gone")


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "folder"
    with staged(place) as aside:
        (aside / "file").write_text("whole")
        assert not place.exists()
    assert (place / "file").read_text() == "whole"
    other = tmp_path / "other"
    with pytest.raises(ZeroDivisionError), staged(other) as aside:
        (aside / "file").write_text(str(1 / 0))
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    with pytest.raises(StateError, match=r"folder: can't be written \(Directory not empty\)"), staged(place):
        pass
    assert (place / "file").read_text() == "whole"

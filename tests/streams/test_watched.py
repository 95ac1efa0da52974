"""A watched folder: file after file by name, files that come later, positions, and what goes wrong."""

import threading
import time

import pytest

from everlearn.errors import StreamError
from everlearn.streams.arrivals import Waiter
from everlearn.streams.watched import FolderLines


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b.jsonl").write_text("3\n4")  # no line break behind the last
    (tmp_path / "a.jsonl").write_text("1\n\n2\n")
    (tmp_path / "a.txt").write_text("no")
    (tmp_path / ".c.jsonl").write_text("no")
    (tmp_path / "empty.jsonl").touch()
    return tmp_path


@pytest.fixture
def waiter():
    waiter = Waiter()
    yield waiter
    waiter.close()


def texts(arrivals):
    return [arrival.raw.strip().decode() for arrival in arrivals]


def test_the_lines_of_all_files_come_by_the_files_names(folder, waiter):
    found = list(FolderLines(folder).read(None, waiter))
    assert texts(found) == ["1", "2", "3", "4"]
    assert [arrival.number for arrival in found] == [1, 2, 3, 4]


def test_it_goes_on_behind_any_position(folder, waiter):
    found = list(FolderLines(folder).read(None, waiter))
    for number, arrival in enumerate(found, 1):
        rest = list(FolderLines(folder).read(arrival.position, waiter))
        assert texts(rest) == texts(found)[number:]
        assert [one.number for one in rest] == [one.number for one in found][number:]


def test_files_that_are_laid_there_later_are_read_and_the_last_may_grow(tmp_path, waiter):
    (tmp_path / "a.jsonl").write_text("1\n2")
    arrivals = FolderLines(tmp_path, follow=True, poll_s=0.01).read(None, waiter)
    assert next(arrivals).raw == b"1\n"

    def lay():
        time.sleep(0.05)
        with (tmp_path / "a.jsonl").open("a") as file:
            file.write("2\n3")
        time.sleep(0.05)
        (tmp_path / "b.jsonl").write_text("4\n")  # now the first is whole
        time.sleep(0.05)
        waiter.wake()

    thread = threading.Thread(target=lay)
    thread.start()
    assert texts(arrivals) == ["22", "3", "4"]
    thread.join()


def test_a_new_file_whose_name_sorts_before_the_last_is_no_secret(folder, waiter):
    (folder / "empty.jsonl").unlink()
    found = list(FolderLines(folder).read(None, waiter))
    (folder / "aa.jsonl").write_text("5\n")
    with pytest.raises(
        StreamError, match=r"name sorts before 'b.jsonl', which was read already\. Got \['a.jsonl', 'aa"
    ):
        list(FolderLines(folder).read(found[-1].position, waiter))
    assert texts(FolderLines(folder).read(found[0].position, waiter)) == ["2", "5", "3", "4"]


def test_a_file_that_changed_and_a_folder_that_is_gone_are_told(folder, waiter):
    found = list(FolderLines(folder).read(None, waiter))
    (folder / "a.jsonl").write_text("9\n")
    with pytest.raises(StreamError, match=r"a\.jsonl: was truncated while it was read"):
        list(FolderLines(folder).read(found[1].position, waiter))
    with pytest.raises(StreamError, match="can't be read"):
        list(FolderLines(folder / "none").read(None, waiter))

"""Lines and items as they arrive, and what happens when the file is no longer the one that was read."""

import json
import os
import sys

import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.streams.arrivals import FileLines, Items, StandardInput, Waiter


@pytest.fixture
def waiter():
    waiter = Waiter()
    yield waiter
    waiter.close()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"one\n\ntwo\r\nthree\n")
    return path


def lines(arrivals, waiter, position=None):
    return [(arrival.number, arrival.raw) for arrival in arrivals.read(position, waiter)]


def append(path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_lines_are_numbered_and_blank_ones_left_out(file, waiter):
    assert lines(FileLines(file), waiter) == [(1, b"one\n"), (3, b"two\r\n"), (4, b"three\n")]


def test_a_last_line_without_its_break_is_a_line_unless_the_file_is_followed(file, waiter):
    append(file, b"four")
    assert lines(FileLines(file), waiter)[-1] == (5, b"four")
    waiter.wake()
    assert lines(FileLines(file, follow=True), waiter)[-1] == (4, b"three\n")


@pytest.mark.parametrize("n_taken", [1, 2, 3])
def test_a_position_is_json_and_goes_on_with_the_next_line(file, waiter, n_taken):
    taken = list(FileLines(file).read(None, waiter))[:n_taken]
    position = json.loads(json.dumps(taken[-1].position))
    assert lines(FileLines(file), waiter, position) == lines(FileLines(file), waiter)[n_taken:]


def test_a_line_that_comes_in_pieces_is_one(file):
    pieces = iter([b"fo", b"u", b"", b"r\n"])
    waiter = Meanwhile(lambda: append(file, next(pieces)))
    arrivals = FileLines(file, follow=True).read(None, waiter)
    assert [next(arrivals).raw for _ in range(4)][-1] == b"four\n"
    assert not list(pieces)
    waiter.close()


def test_a_followed_file_yields_what_is_appended_once_the_line_is_whole(file, waiter):
    arrivals = FileLines(file, follow=True, poll_s=0.001).read(None, waiter)
    assert [next(arrivals).raw for _ in range(3)] == [b"one\n", b"two\r\n", b"three\n"]
    append(file, b"four\nfi")
    assert next(arrivals).raw == b"four\n"
    append(file, b"ve\n")
    found = next(arrivals)
    assert (found.number, found.raw) == (6, b"five\n")
    assert found.position["offset"] == file.stat().st_size


def _truncate(path):
    path.write_bytes(b"one\n")


def _replace(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes() + b"four\n")
    os.replace(other, path)


def _write_anew(path):
    with path.open("r+b") as file:
        file.write(b"a\nb\nc and more than was there before\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (os.remove, "was removed while it was read"),
        (_truncate, r"was truncated while it was read. Got '4 bytes, 16 were read before'"),
        (_replace, "was replaced by another file while it was read"),
        (_write_anew, "was written anew while it was read. Got 'another text in line 4"),
    ],
)
def test_a_followed_file_that_is_no_longer_the_same_is_refused(file, waiter, change, message):
    arrivals = FileLines(file, follow=True, poll_s=0.001).read(None, waiter)
    for _ in range(3):
        next(arrivals)
    change(file)
    with pytest.raises(StreamError, match=f"rows.jsonl: {message}"):
        next(arrivals)


@pytest.mark.parametrize(
    ("change", "message"), [(_truncate, "was truncated"), (_write_anew, "was written anew")], ids=["cut", "anew"]
)
def test_a_file_that_changed_between_two_runs_is_refused(file, waiter, change, message):
    position = list(FileLines(file).read(None, waiter))[-1].position
    change(file)
    with pytest.raises(StreamError, match=message):
        lines(FileLines(file), waiter, position)


class Meanwhile(Waiter):
    """Instead of waiting, lets something happen."""

    def __init__(self, happens):
        super().__init__()
        self.happens = happens

    def wait(self, timeout_s=None, data=None):
        self.happens()
        return False


@pytest.mark.parametrize(
    ("added", "message"),
    [(b"", "was truncated.*Got '16 bytes, 24 were"), (b"another, and longer\n", "was written anew")],
)
def test_a_partial_line_that_is_taken_back_is_refused(file, added, message):
    def take_back():
        os.truncate(file, 16)
        append(file, added)

    append(file, b"four, no")
    waiter = Meanwhile(take_back)
    with pytest.raises(StreamError, match=message):
        lines(FileLines(file, follow=True), waiter)
    waiter.close()


def test_a_missing_file_is_named(tmp_path, waiter):
    with pytest.raises(StreamError, match=r"no\.jsonl: can't be opened \(No such file"):
        lines(FileLines(tmp_path / "no.jsonl"), waiter)


def test_a_position_of_another_source_is_refused(file, waiter):
    with pytest.raises(StreamError, match="the position is of a source that is no file"):
        lines(FileLines(file), waiter, {"number": 3})


def test_a_poll_without_time_between_is_refused(file):
    with pytest.raises(ConfigError, match=r"live\.poll_s: is out of range. Got 0"):
        FileLines(file, follow=True, poll_s=0)


def test_standard_input_is_read_to_its_end(monkeypatch, waiter):
    receiver, sender = os.pipe()
    os.write(sender, b"one\n\ntw")
    os.write(sender, b"o\nthree")
    os.close(sender)
    with os.fdopen(receiver) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert lines(StandardInput(), waiter) == [(1, b"one"), (3, b"two"), (4, b"three")]


def test_standard_input_counts_on_and_says_that_it_cant_go_back(monkeypatch, waiter):
    receiver, sender = os.pipe()
    os.write(sender, b"one\n")
    os.close(sender)
    with os.fdopen(receiver) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.warns(UserWarning, match="standard input can't go back to line 7"):
            assert lines(StandardInput(), waiter, {"number": 7}) == [(8, b"one")]


def test_standard_input_ends_when_woken(monkeypatch, waiter):
    receiver, sender = os.pipe()
    waiter.wake()
    with os.fdopen(receiver) as stdin, os.fdopen(sender, "w"):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert lines(StandardInput(), waiter) == []


def test_items_are_gone_through_again_up_to_where_they_were(waiter):
    assert lines(Items("abc"), waiter) == [(1, "a"), (2, "b"), (3, "c")]
    assert lines(Items(iter("abc")), waiter, {"number": 2}) == [(3, "c")]
    with pytest.raises(StreamError, match=r"end before row 4, where it stopped\. Got 3"):
        lines(Items("abc"), waiter, {"number": 4})


def test_a_waiter_wakes_for_good_for_data_and_when_time_is_up(waiter):
    receiver, sender = os.pipe()
    assert not waiter.wait(0.001)
    os.write(sender, b"x")
    assert not waiter.wait(data=receiver)
    waiter.wake()
    assert waiter.wait()
    assert waiter.wait()
    for descriptor in (receiver, sender):
        os.close(descriptor)

"""Where live rows come from: a file that may still grow, standard input, or any iterable."""

import hashlib
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from everlearn.errors import StreamError, check_number, describe

Position = dict[str, Any]  # JSON; what to go on from
_CHUNK_BYTES = 65_536
_looked_at = bytearray()  # of standard input, which a process has but one of: read, and not handed out yet


@dataclass(frozen=True)
class Arrival:
    """A line (bytes) or an item of an iterable, its number among them from 1, and the position behind it."""

    number: int
    raw: object
    position: Position


class Waiter:
    """Lets a reader sleep until time is up, data has come, or another thread or a signal handler wakes it for good."""

    def __init__(self) -> None:
        self._receiver, self._sender = os.pipe()
        self._is_open = True

    def wake(self) -> None:
        """End this and all later waits at once."""
        if self._is_open:
            os.write(self._sender, b"\0")

    def wait(self, timeout_s: float | None = None, data: int | None = None) -> bool:
        """Return True when woken, False when the time is up or the file descriptor `data` can be read."""
        watched = [self._receiver] if data is None else [self._receiver, data]
        return self._receiver in select.select(watched, [], [], timeout_s)[0]

    def close(self) -> None:
        """Free the descriptors; nobody may be waiting."""
        if self._is_open:
            self._is_open = False
            os.close(self._receiver)
            os.close(self._sender)


class Arrivals(Protocol):
    """What `LiveRows` reads."""

    name: str
    unit: str
    can_be_woken: bool  # whether `read` ends soon after `waiter` is woken

    def read(self, position: Position | None, waiter: Waiter) -> Iterator[Arrival]:
        """Yield what comes after `position` (None: from the start), until the end or until woken."""


@dataclass(frozen=True)
class FileLines:
    """The lines of a file; blank ones are left out.

    Args:
        path: a file with one JSON object a line.
        follow: at the end wait for more, and take a line only when its line break has come. Without, the file ends
            where it ends now, and its last line needs no line break.
        poll_s: seconds between two looks at a file that hasn't grown.
        is_whole: asked at the end of a file that is followed; True: it won't grow, and is read as one that isn't.
    """

    path: Path
    follow: bool = False
    poll_s: float = 0.2
    is_whole: Callable[[], bool] = lambda: False
    unit: str = field(default="line", init=False)
    can_be_woken: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_number("live.poll_s", self.poll_s, above=0)

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def read(self, position: Position | None, waiter: Waiter) -> Iterator[Arrival]:
        """Yield the lines after `position`.

        Raises:
            StreamError: if the file can't be opened, is shorter than what was read, was replaced or removed, or the
                last line that was read has changed.

        Cost: looking at the file and its last line again before each line, some 5 µs.
        """
        try:
            file = self.path.open("rb")
        except OSError as error:
            what = f"can't be opened ({error.strerror})"
            raise StreamError(describe(self.name, what, self.path.name, "Check the path")) from error
        with file:
            last = position or {"number": 0, "offset": 0, "start": 0, "digest": _digest(b"")}
            if "offset" not in last:
                way_out = "Begin with a new state file"
                raise StreamError(describe(self.name, "the position is of a source that is no file", last, way_out))
            file.seek(last["offset"])
            line = b""
            while True:
                self._check(file, last, line)
                is_whole = not self.follow or self.is_whole()  # asked before the look: nothing can come between
                line += file.readline()
                if not line.endswith(b"\n"):
                    if is_whole:
                        break
                    if waiter.wait(self.poll_s):
                        return
                    continue
                last = _behind(last, line)
                if line.strip():
                    yield Arrival(last["number"], line, last)
                line = b""
            if line.strip():
                last = _behind(last, line)
                yield Arrival(last["number"], line, last)

    def _check(self, file: BinaryIO, last: Position, partial: bytes) -> None:
        """Raise StreamError unless the path still names this file, and the last line and the part behind it stand."""
        opened = os.fstat(file.fileno())
        try:
            named = os.stat(self.path)
        except OSError as error:
            raise self._changed("was removed", error.strerror) from error
        if (opened.st_dev, opened.st_ino) != (named.st_dev, named.st_ino):
            raise self._changed("was replaced by another file", self.path.name)
        n_read_bytes = last["offset"] + len(partial)
        if opened.st_size < n_read_bytes:
            raise self._changed("was truncated", f"{opened.st_size} bytes, {n_read_bytes} were read before")
        line = os.pread(file.fileno(), last["offset"] - last["start"], last["start"])
        if _digest(line) != last["digest"] or os.pread(file.fileno(), len(partial), last["offset"]) != partial:
            raise self._changed("was written anew", f"another text in line {last['number']} or behind it")

    def _changed(self, what: str, got: str | None) -> StreamError:
        way_out = "What came after the last acknowledged row may be lost: see to it, then begin with a new state file"
        return StreamError(describe(self.name, f"{what} while it was read", got, way_out))


@dataclass(frozen=True)
class StandardInput:
    """The lines of standard input, until it ends. It can't be read twice, so nothing is skipped after a resume."""

    name: str = field(default="standard input", init=False)
    unit: str = field(default="line", init=False)
    can_be_woken: bool = field(default=True, init=False)

    def read(self, position: Position | None, waiter: Waiter) -> Iterator[Arrival]:
        """Yield the lines; they are counted on from `position`, with a warning that it can't be gone back to."""
        number = position["number"] if position else 0
        if number:
            message = f"standard input can't go back to line {number}: it is read from where it is, and counted on"
            warnings.warn(message, UserWarning, stacklevel=2)
        descriptor, pending, chunk = sys.stdin.fileno(), bytes(_looked_at), b" "
        _looked_at.clear()
        while chunk:
            if b"\n" not in pending:
                if waiter.wait(data=descriptor):
                    return
                chunk = os.read(descriptor, _CHUNK_BYTES)
                pending += chunk
            *lines, pending = pending.split(b"\n")
            if not chunk and pending:
                lines.append(pending)
            for line in lines:
                number += 1
                if line.strip():
                    yield Arrival(number, line, {"number": number})


def first_line_of_input() -> bytes:
    """Return standard input's first line that isn't blank, waiting for it; `StandardInput` still gives it. Empty where
    there is none."""  # fmt: skip
    while True:
        lines = _looked_at.split(b"\n")
        found = next((line for line in lines[:-1] if line.strip()), None)
        chunk = b"" if found is not None else os.read(sys.stdin.fileno(), _CHUNK_BYTES)
        if not chunk:
            return bytes(lines[-1].strip() if found is None else found)
        _looked_at.extend(chunk)


@dataclass(frozen=True)
class Items:
    """The items of any iterable; a resumed one is gone through again up to where it was.

    While the iterable makes its next item nothing can wake it: its thread is then left behind, and ends with the
    program.
    """

    items: Iterable[Any]
    name: str = field(default="rows", init=False)
    unit: str = field(default="row", init=False)
    can_be_woken: bool = field(default=False, init=False)

    def read(self, position: Position | None, waiter: Waiter) -> Iterator[Arrival]:
        """Yield the items after `position`.

        Raises:
            StreamError: if there are fewer than were acknowledged.
        """
        n_skipped, number = position["number"] if position else 0, 0
        for number, item in enumerate(self.items, start=1):
            if number > n_skipped:
                yield Arrival(number, item, {"number": number})
        if number < n_skipped:
            way_out = "Pass the same rows as before"
            raise StreamError(describe("live rows", f"end before row {n_skipped}, where it stopped", number, way_out))


def _behind(last: Position, line: bytes) -> Position:
    """Return the position after `line`, which follows `last`."""
    start = last["offset"]
    return {"number": last["number"] + 1, "offset": start + len(line), "start": start, "digest": _digest(line)}


def _digest(line: bytes) -> str:
    return hashlib.blake2b(line, digest_size=8).hexdigest()

"""Files of a folder that is kept for years: JSON that carries its own checksum, a log that only grows, a lock."""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from everlearn.errors import StateError, describe
from everlearn.state import file_sha256, fsync_folder, read_json, write_json, writing


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        StateError: if it can't be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        way_out = "Restore it from a copy of the folder"
        raise StateError(describe(str(path), f"can't be read ({error.strerror})", path.name, way_out)) from error


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` by a JSON object and, under "sha256", the checksum of all the rest."""
    write_json(path, {**value, "sha256": _seal(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what `write_sealed` wrote.

    Raises:
        StateError: if it is missing or altered.
    """
    value = read_json(path)
    found = value.pop("sha256", None) if isinstance(value, dict) else None
    if found is None or found != _seal(value):
        way_out = "Restore it from a copy of the folder"
        raise StateError(describe(str(path), "is damaged (its checksum differs)", str(found)[:12], way_out))
    return value


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Add one line of JSON to a log; it is on the disk when this returns. A last line that a crash cut off goes first.

    Raises:
        StateError: if it can't be written.
    """
    line = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
    with writing(path), open(path, "a+b") as file:
        file.seek(0)
        present = file.read()
        file.truncate(present.rfind(b"\n") + 1)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, without a last one that a crash cut off.

    Raises:
        StateError: if the file is missing or a line is no JSON.
    """
    try:
        whole = path.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.split(b"\n") if line]
    except (OSError, ValueError) as error:
        way_out = "Mend that line or restore the file from a copy; nothing else depends on it"
        raise StateError(describe(str(path), f"can't be read ({error})", path.name, way_out)) from error


@contextmanager
def locked(path: Path, what: str = "home") -> Iterator[None]:
    """Hold the lock file `path`; the kernel lets go of it when the process ends, however it ends.

    Args:
        what: is changed meanwhile, in a word.

    Raises:
        StateError: if another process holds it, with its pid.
    """
    with writing(path):
        file = open(path, "a+")  # noqa: SIM115, closed below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            way_out = "Wait until it has ended, or stop it; what it did so far is kept"
            where, pid = str(path.parent), file.read().strip()
            held = f"another process is changing this {what}"
            raise StateError(describe(where, held, f"pid {pid}", way_out)) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def staged(place: Path) -> Iterator[Path]:
    """Give a folder to write into, which appears whole, and on the disk, as `place` when the block ends.

    Raises:
        StateError: if it can't be written.
    """
    aside = place.absolute().with_name(f".{place.name}.{os.getpid()}.tmp")
    with writing(place):
        try:
            remove(aside)
            aside.mkdir(parents=True)
            yield aside
            fsync_folder(aside)
            os.rename(aside, place)
            fsync_folder(aside.parent)
        finally:
            if aside.exists():
                remove(aside)


def now() -> str:
    """Return the time, UTC, to the millisecond."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def remove(path: Path) -> None:
    """Delete a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

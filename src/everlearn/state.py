"""Saving so that a crash at any moment leaves the last good state: written aside, fsynced, renamed. No pickle."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from everlearn.errors import ConfigError, ModelError, StateError, StreamError, describe

TENSORS = "tensors.safetensors"
VALUES = "values.json"
FILE = "__file__"  # key of a state's dict that names a file made by `save_named`
KEPT_CHECKPOINTS = 2  # the newest and one to fall back on

MAKE_ROOM = "Free some space, or see to the folder's permissions; what was stored before is untouched"


def write_file(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a reader, or a crash, sees either the old file or the whole new one.

    Raises:
        StateError: if the disk is full or the folder can't be written; the old file is then untouched.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            fsync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_file` for a JSON value, indented; NaN is refused by raising ValueError (JSON has none)."""
    write_file(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path, way_out: str = "Restore the file from a copy, or start a new folder") -> Any:
    """Return the JSON value in `path`.

    Raises:
        StateError: if the file is missing, unreadable, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StateError(describe(str(path), f"can't be read ({error})", path.name, way_out)) from error


def pack(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """Return `value` with each tensor moved to `tensors` and replaced by its key: what is left is plain JSON."""
    if isinstance(value, torch.Tensor):
        # a copy: safetensors refuses tensors that share memory, and training goes on while nothing is written yet
        while name in tensors:  # {"a/b": tensor, "a": {"b": tensor}} would share a name
            name += "'"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"__tensor__": name}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: pack(item, tensors, f"{name}/{key}") for key, item in value.items()}
        return {"__items__": [[key, pack(item, tensors, f"{name}/{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [pack(item, tensors, f"{name}/{i}") for i, item in enumerate(value)]
    return value


def unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Undo `pack`; tuples come back as lists.

    Tensors are copied: a file's may lie unaligned in memory, where sums come out in another order.
    """
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]].clone()
        if "__items__" in value:
            return {key: unpack(item, tensors) for key, item in value["__items__"]}
        return {key: unpack(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    return value


def save_state(folder: Path, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values as one new folder that appears whole or not at all.

    Raises:
        StateError: if the folder exists (saved state is never overwritten) or can't be written (a full disk, say).
    """
    folder = Path(folder)
    if folder.exists():
        raise StateError(describe(str(folder), "exists", folder.name, "Save under a new name; see save_checkpoint"))
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with writing(folder):
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            save_file(dict(tensors), aside / TENSORS)
            fsync_file(aside / TENSORS)
            content = {"sha256": file_sha256(aside / TENSORS), "values": values}
            (aside / VALUES).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
            fsync_file(aside / VALUES)
            fsync_folder(aside)
            os.rename(aside, folder)
            fsync_folder(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def load_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_state` wrote, checking every byte of the tensors against the stored SHA-256.

    Raises:
        StateError: if a file is missing, truncated or altered.
    """
    folder = Path(folder)
    way_out = f"Delete {folder} to go on from the state before it, if there is one"
    content = read_json(folder / VALUES, way_out)
    try:
        found = file_sha256(folder / TENSORS)
        if not isinstance(content, dict) or found != content.get("sha256"):
            raise StateError(describe(str(folder / TENSORS), "is damaged (its checksum differs)", found[:12], way_out))
        return load_file(folder / TENSORS), content["values"]
    except (OSError, SafetensorError, KeyError) as error:
        raise StateError(describe(str(folder), f"can't be read ({error})", folder.name, way_out)) from error


def save_value(folder: Path, value: Any, name: str) -> Any:
    """`save_state` for tensors and JSON nested in each other, as `pack` takes them apart; return what `pack` returned.

    Args:
        name: begins the tensors' names in the file.
    """
    tensors: dict[str, torch.Tensor] = {}
    values = pack(value, tensors, name)
    save_state(folder, tensors, values)
    return values


def load_value(folder: Path) -> Any:
    """Return what `save_value`, or `save_checkpoint` of what `pack` took apart, wrote; raises as `load_state` does."""
    tensors, values = load_state(folder)
    return unpack(values, tensors)


def save_checkpoint(folder: Path, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> Path:
    """Write the next numbered checkpoint below `folder`, then delete all but the newest two."""
    present = checkpoints(folder)
    number = int(present[-1].name) + 1 if present else 0
    save_state(folder / f"{number:06d}", tensors, values)
    for old in present[: 1 - KEPT_CHECKPOINTS]:
        shutil.rmtree(old)
    return folder / f"{number:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints below `folder`, oldest first."""
    return sorted(entry for entry in folder.glob("*") if entry.name.isdigit()) if folder.exists() else []


def save_named(folder: Path, suffix: str, write: Callable[[Path], None]) -> str:
    """Let `write` make a file below `folder`, which appears whole under the SHA-256 of its bytes. Returns that name.

    A state refers to the file as {FILE: name}, so that states share it instead of copying it.

    Raises:
        StateError: if the disk is full or the folder can't be written.
    """
    aside = folder / f".{os.getpid()}{suffix}.tmp"
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(aside)
            fsync_file(aside)
            name = file_sha256(aside) + suffix
            os.replace(aside, folder / name)
            fsync_folder(folder)
            return name
        finally:
            aside.unlink(missing_ok=True)


def named_file(folder: Path, name: str) -> Path:
    """Return the path of a file that `save_named` made, its bytes checked against its name.

    Raises:
        StateError: if it is missing or altered.
    """
    path, way_out = folder / name, "Put it back from a copy of the folder"
    try:
        found = file_sha256(path)
    except OSError as error:
        raise StateError(describe(str(path), f"can't be read ({error.strerror})", name, way_out)) from error
    if found != path.stem:
        raise StateError(describe(str(path), "is damaged (its checksum differs)", found[:12], way_out))
    return path


def named_files(value: Any) -> set[str]:
    """Return the names of the files that a state's values refer to."""
    if isinstance(value, dict):
        own = {value[FILE]} if FILE in value else set()
        return own.union(*map(named_files, value.values()))
    return set().union(*map(named_files, value)) if isinstance(value, list | tuple) else set()


def clear_unnamed(folder: Path, states: Iterable[Path]) -> None:
    """Delete the files below `folder` that none of the saved states refers to."""
    present = [path for path in folder.glob("*") if not is_leftover(path)]
    if not present:
        return
    try:
        named = set().union(*(named_files(read_json(state / VALUES)) for state in states))
    except StateError:
        return  # what a damaged state refers to can't be told, so nothing is deleted
    for path in present:
        if path.name not in named:
            path.unlink()


def is_leftover(path: Path) -> bool:
    """Tell whether a name is one that this module writes under before it renames; a crash can leave it behind."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def check_new_folder(out: Path) -> None:
    """Raise ConfigError if a run can't begin in `out`, since something other than leftovers is there."""
    try:
        is_used = out.exists() and any(not is_leftover(entry) for entry in out.iterdir())
    except OSError as error:
        raise _no_folder(out, error) from error
    if is_used:
        way_out = f"Go on with it: everlearn resume {out}; or name a new folder"
        raise ConfigError(describe("out", "the folder is not empty", str(out), way_out))


def make_folder(out: Path) -> None:
    """Make the folder that results go to, with those above it; raise ConfigError if it can't be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(out, error) from error


@contextmanager
def beginning_in(out: Path) -> Iterator[None]:
    """Make the new folder that a run begins in; a run that is refused before its first checkpoint takes it away.

    Raises:
        ConfigError: if it is in use, or can't be made.
    """
    check_new_folder(out)
    was_there = out.exists()
    make_folder(out)
    try:
        yield
    except (ConfigError, ModelError, StreamError):
        if not checkpoints(out / "checkpoints"):
            for entry in out.iterdir():
                (shutil.rmtree if entry.is_dir() else os.unlink)(entry)
            if not was_there:
                out.rmdir()
        raise


def _no_folder(out: Path, error: OSError) -> ConfigError:
    return ConfigError(describe("out", f"can't be used ({error.strerror})", str(out), "Name a folder to write to"))


def clear_leftovers(folder: Path) -> None:
    """Delete what a crash left half-written below a folder that no other process writes to."""
    for path in [found for found in folder.rglob(".*.tmp") if is_leftover(found)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def rng_state() -> dict[str, Any]:
    """Return the state of the global generators of torch (CPU and every GPU), Python and NumPy: tensors and JSON."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "python": [version, torch.tensor(words), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(numpy.int64)), int(position), int(has_gauss), float(cached)],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore what `rng_state` returned; of an older checkpoint, torch's alone."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "python" in state:
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words.tolist()), gauss))
        name, keys, *rest = state["numpy"]
        numpy.random.set_state((name, keys.numpy().astype(numpy.uint32), *rest))


@contextmanager
def writing(path: Path, way_out: str = MAKE_ROOM) -> Iterator[None]:
    """Turn what the system says when `path` can't be made, renamed or written into one sentence.

    Raises:
        StateError: in place of OSError.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise StateError(describe(str(path), f"can't be written ({reason})", path.name, way_out)) from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; OSError if it can't be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_file(path: Path) -> None:
    """Make what is in a file durable."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""A library as part of a run's state: where it is, and how a run that was stopped finds it again as it was."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everlearn.errors import StateError, describe
from everlearn.experts.library import Library
from everlearn.state import read_json, write_json

if TYPE_CHECKING:
    from everlearn.way import Run

_BEGAN = "library.json"  # in the folder of a run that changes a library which outlives it: what that was before


def place_of(run: "Run") -> Path | None:
    """Return the folder of a run's library: the one that outlives it, or one in the run's own; None: it has none."""
    if run.library is not None:
        return run.library
    folder = run.saving.folder
    return None if folder is None else folder / "library" / f"seed-{run.seed}"


def passing_place() -> Path:
    """Return a new folder that is gone when this process ends."""
    folder = tempfile.mkdtemp(prefix="everlearn-library-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "library"


def open_to_learn(run: "Run", path: Path, snapshot: Mapping[str, Any], *, rank: int, max_loaded: int) -> Library:
    """Return a run's library at the beginning of a task, as it was at the end of the one before; a new one at first.

    In a library of the run's own, what was made since was made by a process that was stopped, and never was. One that
    outlives the run has what others' states refer to: all of that stays. What it was when the run began is then written
    down in the run's folder, so that only what a stopped process made of it goes.

    Args:
        snapshot: what it was; empty where nothing is known of it.

    Raises:
        StateError: if it isn't there any more. ModelError: if it is of another base.
    """
    if not Library.is_library(path):
        if snapshot:
            way_out = "Restore the folder from a copy"
            raise StateError(describe("strategy 'experts'", "the library isn't there any more", str(path), way_out))
        path.parent.mkdir(parents=True, exist_ok=True)
        library = Library.create(path, run.model, rank=rank, max_loaded=max_loaded)
    else:
        library = Library.open(path, run.model)
    snapshot = snapshot or Library.EMPTY
    if run.library is None:
        library.restore(snapshot, forget=True)
        return library
    began = None if run.saving.folder is None else run.saving.folder / _BEGAN
    if began is not None and began.exists():
        library.restore(read_json(began), forget=True)
        return library
    library.restore(snapshot)
    if began is not None:
        write_json(began, library.snapshot())
    return library


def open_to_go_on(run: "Run", path: Path, snapshot: Mapping[str, Any]) -> Library:
    """Return a run's library in mid-task, as it was when the run was saved: what was made since never was."""
    library = Library.open(path, run.model)
    library.restore(snapshot, forget=True)
    return library


def forget(folder: Path, path: Path) -> None:
    """Undo what a run whose folder is given up made of a library that outlives it, if it changed one at all."""
    if (folder / _BEGAN).exists() and Library.is_library(path):
        Library(path).restore(read_json(folder / _BEGAN), forget=True)

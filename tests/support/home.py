"""Rows for the tests of a home, and what must be the same in two of them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everlearn.files import sha256_of
from everlearn.home import Home
from everlearn.home.store import files_in


def rows(words: tuple[str, str], n: int, start: int = 0) -> list[dict]:
    """Texts of two classes, told by a word; a text's length tells its number, so that none repeats."""
    return [
        {"text": " ".join(["is"] * (i // 2 + 1) + [words[i % 2]]), "label": words[i % 2]}
        for i in range(start, start + n)
    ]


def end_of(path: Path) -> dict[str, Any]:
    """Return what must be the same however often the learning was killed."""
    home = Home.open(path)
    return {
        "weights": sha256_of(path / "versions" / "000003" / "state" / "tensors.safetensors"),
        "scores": {name: sha for name, sha in files_in(path / "versions" / "000003" / "scores").items()},
        "current": home.current,
        "events": [(event["event"], event["version"]) for event in home.log()],
        "items": {name: sha for name, sha in files_in(path / "tasks").items()},
        "pending": (path / "pending").exists(),
        "leftovers": [str(found) for found in path.rglob(".*.tmp")],
        "problems": [problem for number in range(4) for problem in home._store.problems(number)],
    }


def moments_of(home: Path, work: Callable[[], Any], folder: Path) -> list[Path]:
    """Do some work on a home and return copies of it below a folder: for each state that its files go through the last
    one, with all that is half-written beside it."""  # fmt: skip
    found: dict[tuple, Path] = {}

    def copy() -> None:
        files = sorted(path for path in home.rglob("*") if path.is_file() and path.name != "lock")
        state = tuple((path, path.read_bytes()) for path in files if ".tmp" not in str(path))
        with patch.context() as unpatched:
            for name, real in reals.items():
                unpatched.setattr(os, name, real)
            place = found.setdefault(state, folder / f"{len(found):04d}" / "home")
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(home, place)

    def before(real: Callable) -> Callable:
        def call(*arguments: Any, **named: Any) -> Any:
            copy()
            return real(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        reals = {name: getattr(os, name) for name in ("rename", "replace", "unlink", "rmdir")}
        for name, real in reals.items():
            patch.setattr(os, name, before(real))
        work()
    return list(found.values())

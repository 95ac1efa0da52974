"""Rows for the tests of a home, and what must be the same in two of them."""

from pathlib import Path
from typing import Any

from everlearn.home import Home
from everlearn.home.files import sha256_of
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

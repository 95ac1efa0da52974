"""Making a home: the first files, in a folder that appears whole or not at all."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from everlearn.files import append_line, now, staged, write_sealed
from everlearn.home.abilities import keep_files
from everlearn.home.settings import Settings
from everlearn.home.store import VERSION_FILE, Version, event_of
from everlearn.record import environment
from everlearn.state import write_json

SCHEMA = 1


def make_home(
    path: Path, settings: Settings, fingerprint: Mapping[str, str], abilities: Mapping[str, Path] | None = None
) -> None:
    """Write a new home; the folder appears whole.

    Args:
        path: a folder that is empty or not there. fingerprint: of the base model. abilities: files that are kept, see
            `everlearn.home.abilities`.

    Raises:
        StateError: if it can't be written.
    """
    with staged(path) as aside:
        root = aside / "versions" / "000000"
        root.mkdir(parents=True)
        (aside / "tasks").mkdir()
        keep_files(aside, abilities or {})
        made = now()
        write_sealed(root / VERSION_FILE, asdict(Version(0, None, "initial", made)))
        event = {**event_of("init", 0, {"model": settings.model.name}), "time": made}
        write_json(aside / "current", {"version": 0, "event": event})
        append_line(aside / "log.jsonl", event)
        env = _environment()
        home = {"schema": SCHEMA, "settings": asdict(settings), "base": dict(fingerprint), "time": made, "env": env}
        write_json(aside / "home.json", home)


def _environment() -> dict[str, Any]:
    """Return the versions of what the home was made with."""
    return environment(torch.device("cpu"))

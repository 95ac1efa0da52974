"""What a run leaves behind while it goes on: results.jsonl, a line for each score, and what it ran on."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from everlearn.errors import StateError, describe
from everlearn.state import writing
from everlearn.types import Cost, TaskResult

SCHEMA = 1
_PACKAGES = ("everlearn", "torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "numpy")
_WAY_OUT = "Restore the file, or begin anew in another folder"


class JsonLines:
    """Appends lines to a file. Inactive on all processes but one."""

    def __init__(self, path: Path, *, active: bool = True):
        self.path = path
        self.active = active

    def n_bytes(self) -> int:
        """Return how long the file is."""
        return self.path.stat().st_size if self.path.exists() else 0

    def check_holds(self, n_bytes: int) -> None:
        """Raise StateError if the file is shorter than it was."""
        if self.active and self.n_bytes() < n_bytes:
            what = "is shorter than when the run was saved"
            raise StateError(describe(str(self.path), what, self.n_bytes(), _WAY_OUT))

    def cut(self, n_bytes: int) -> None:
        """Drop what was written after the file was `n_bytes` long."""
        self.check_holds(n_bytes)
        if not self.active or not self.path.exists():
            return
        with open(self.path, "r+b") as file:
            file.truncate(n_bytes)
            os.fsync(file.fileno())

    def append(self, line: dict[str, Any], *, sync: bool = True) -> None:
        """Write one line; with `sync` it is on the disk before the next thing is done."""
        if not self.active:
            return
        with writing(self.path, "Free some space, then go on with: everlearn resume"), open(self.path, "ab") as file:
            file.write((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode())
            file.flush()
            if sync:
                os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; without the last one where a kill cut it off.

    Raises:
        StateError: if the file is missing, or a line is no JSON object.
    """
    lines = []
    try:
        for number, text in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
            lines.append(json.loads(text))
            if not isinstance(lines[-1], dict):
                raise ValueError(f"line {number} is no object")
    except (OSError, ValueError) as error:
        raise StateError(describe(str(path), f"can't be read ({error})", str(path.parent), _WAY_OUT)) from error
    return lines


class Recorder(JsonLines):
    """Writes results.jsonl."""

    def header(
        self, recipe: dict[str, Any], env: dict[str, Any], tasks: dict[str, list[str]], model: Mapping[str, str]
    ) -> None:
        """Write the first line. model: its fingerprint (models/origin.py)."""
        head = {"type": "header", "schema": SCHEMA, "recipe": recipe, "env": env, "tasks": tasks}
        self.append({**head, "model": dict(model)})

    def data(self, record: Mapping[str, Any]) -> None:
        """Write what a task's data is; see `everlearn.provenance.data_record`."""
        self.append({"type": "data", **record})

    def result(self, result: TaskResult) -> None:
        """Write one cell of the accuracy matrix."""
        line = {"type": "score", "seed": result.seed, "after": result.after, "trained": result.trained}
        self.append({**line, **asdict(result.score)})

    def ability(self, result: TaskResult) -> None:
        """Write how much of one of the base model's abilities is left."""
        line = {"type": "ability", "seed": result.seed, "after": result.after, "trained": result.trained}
        self.append({**line, **asdict(result.score)})

    def cost(self, seed: int, after: int, trained: str, cost: Cost) -> None:
        """Write what learning one task took."""
        self.append({"type": "cost", "seed": seed, "after": after, "trained": trained, **asdict(cost)})


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a result depends on besides the recipe: versions, processor, device, threads."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "n_cpus": os.cpu_count(),
        "n_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": {name: metadata.version(name) for name in _PACKAGES},
    }

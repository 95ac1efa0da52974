"""Small grids."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from everlearn.bench.cells import work
from everlearn.bench.engines import Engine
from everlearn.streams.digits import DigitsStream
from everlearn.types import Stream
from support.recipes import plain_recipe


def write_grid(folder: Path, **changes: Any) -> Path:
    """Write a grid of an MLP on the digits into a folder; return its file."""
    recipe = plain_recipe([])
    del recipe["strategies"]
    grid = {"recipe": recipe, "methods": ["none", "replay", "joint"], "seeds": [0, 1], "threads": 1, **changes}
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    return folder / "grid.yaml"


@contextmanager
def in_this_process(n_workers: int, threads: int) -> Iterator[Engine]:
    """Stand in for `everlearn.bench.engines.processes`, whose processes take seconds to start."""
    yield lambda jobs: map(work, jobs)


@dataclass(frozen=True)
class KillsOnce:
    """Stream of digits that kills the process that builds it first. marker: file that says that it did."""

    marker: str

    def build(self) -> Stream:
        if not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return DigitsStream(n_tasks=2).build()

"""Mixed precision by fp16 on the CPU, which Accelerate refuses and torch can do: for what must hold on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from everlearn.way import Run


@dataclass
class Half:
    """Stands in for the Accelerator of one process."""

    scaler: torch.amp.GradScaler | None = field(default_factory=lambda: torch.amp.GradScaler("cpu"))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    num_processes: int = 1
    process_index: int = 0
    trackers: tuple = ()

    @contextmanager
    def autocast(self) -> Iterator[None]:
        with torch.autocast("cpu", torch.float16):
            yield


def in_half(run: Run, scaled: bool = True) -> Run:
    """Let a run compute in fp16, with a loss scale or without."""
    run.accelerator = Half() if scaled else Half(scaler=None)
    return run

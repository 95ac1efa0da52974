"""When and where a run is saved, and where it stops when a pause is asked for."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from everlearn.config import CheckpointConfig
from everlearn.errors import Paused
from everlearn.processes import Processes
from everlearn.shards import gathered
from everlearn.state import checkpoints, load_value, pack, save_checkpoint


@dataclass
class Saving:
    """Keeps what a run needs to go on, in a folder's `checkpoints`.

    Attributes:
        folder: None to keep nothing.
        every: how often in mid-task.
        context: JSON of whoever leads the run, saved with each checkpoint.
        pause_requested: whether to stop at the next step.
        when_paused: wakes whatever waits, when a pause is asked for. when_saved: is called when the state, with its
            context, is on the disk.
    """

    folder: Path | None = None
    every: CheckpointConfig = field(default_factory=CheckpointConfig)
    context: dict[str, Any] = field(default_factory=dict)
    pause_requested: bool = False
    when_paused: Callable[[], None] = lambda: None
    when_saved: Callable[[], None] = lambda: None
    _saved_at: float = field(default_factory=time.monotonic)
    _steps_since_save: int = 0

    def after_step(self, processes: Processes, save: Callable[[], None]) -> None:
        """Call `save` when it is due, or when a pause was asked for; then stop.

        Raises:
            Paused: on all processes together.
        """
        self._steps_since_save += 1
        if self.folder is None and not self.pause_requested:
            return
        by_steps = self.every.every_steps is not None and self._steps_since_save >= self.every.every_steps
        by_time = self.unsaved_for() == 0
        if processes.size > 1:
            by_time = processes.first_decides(by_time)
            self.pause_requested = bool(processes.sum(int(self.pause_requested)))
        if by_steps or by_time or self.pause_requested:
            save()
        if self.pause_requested:
            processes.accelerator.wait_for_everyone()  # the first one saves, and all may go on from that at once
        self.pause_if_asked()

    def pause_if_asked(self) -> None:
        """Raise Paused when a pause was asked for."""
        if self.pause_requested:
            raise Paused(str(self.folder))

    def unsaved_for(self) -> float | None:
        """Return the seconds until steps that were taken are to be saved by time; None where there are none, or never
        by time."""  # fmt: skip
        if self.folder is None or self.every.every_s is None or not self._steps_since_save:
            return None
        return max(0.0, self._saved_at + self.every.every_s - time.monotonic())

    def save(self, state: Callable[[], dict[str, Any]], processes: Processes) -> None:
        """Write a checkpoint: tensors and JSON, on the first process; what is sharded is put together by all."""
        self._saved_at, self._steps_since_save = time.monotonic(), 0
        if self.folder is None or (processes.rank != 0 and not processes.sharded):
            return
        whole = {**state(), "context": self.context}
        whole = gathered(whole) if processes.sharded else whole
        if processes.rank != 0:
            return
        tensors: dict[str, torch.Tensor] = {}
        values = pack(whole, tensors, "run")
        save_checkpoint(self.folder / "checkpoints", tensors, values)
        self.when_saved()

    def newest(self) -> dict[str, Any] | None:
        """Return the state in the newest checkpoint, its context taken over; None where there is none.

        Raises:
            StateError: if it is damaged. The one before it is still there.
        """
        saved = [] if self.folder is None else checkpoints(self.folder / "checkpoints")
        if not saved:
            return None
        state = load_value(saved[-1])
        self.context = state.pop("context", {})
        return state


@contextmanager
def pause_on_interrupt(saving: Saving) -> Iterator[None]:
    """Let the first Ctrl-C ask for a pause at the next step; a second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        saving.pause_requested = True
        saving.when_paused()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

"""What a worker does with a cell: check what it is made of, or run it, or go on with it, up to a deadline."""

import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from everlearn.errors import EverlearnError, Paused
from everlearn.learners.devices import start_accelerator
from everlearn.listener import Listener
from everlearn.runs import drop_weights, read_recipe, run_or_resume
from everlearn.saving import Saving

DONE, FAILED, PAUSED = "done", "failed", "paused"


@dataclass(frozen=True)
class Job:
    """What is asked of a worker; plain values, for it may be another machine.

    Attributes:
        name: of the cell.
        content: its recipe's.
        folder: of the run; None: only check that its data and its model can be read.
        log: file that what it says is added to.
        here: the folder that relative paths begin in.
        threads: that it may use.
        deadline: when it is paused, as `time.time()` tells; None: never.
        keep_weights: and checkpoints of a run that came to its end.
    """

    name: str
    content: dict[str, Any]
    folder: str | None
    log: str
    here: str
    threads: int
    deadline: float | None = None
    keep_weights: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a job: done, failed or paused; the error in one line; what it took."""

    name: str
    state: str
    error: str = ""
    seconds: float = 0.0


def work(job: Job) -> Outcome:
    """Do a job; whatever goes wrong is told, not raised: the next one is another's."""
    os.chdir(job.here)
    torch.set_num_threads(job.threads)
    if job.deadline is not None and time.time() >= job.deadline:
        return Outcome(job.name, PAUSED)
    started, state, error = time.monotonic(), DONE, ""
    Path(job.log).parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            if job.folder is None:
                check(job)
            else:
                with paused_at(job.deadline):
                    run_or_resume(job.content, job.folder, listener=Told())
                if not job.keep_weights:
                    drop_weights(Path(job.folder))
        except (Paused, KeyboardInterrupt):
            state = PAUSED
        except EverlearnError as refused:
            state, error = FAILED, str(refused)
        except Exception as broken:  # noqa: BLE001, of a method or a model: named in one line, whole in the log
            traceback.print_exc()
            told = " ".join(str(broken).split())
            state, error = FAILED, f"{type(broken).__name__}: {told[:300]}"
    return Outcome(job.name, state, error, time.monotonic() - started)


def check(job: Job) -> None:
    """Read the data and load the model that a cell's recipe names; nothing is kept.

    Raises:
        EverlearnError: if that can't be.
    """
    kind, recipe = read_recipe(job.content)
    with TemporaryDirectory() as out:
        made = kind(recipe, Path(out), Told())
        accelerator = start_accelerator(**made.devices(), folder=Path(out))
        made.open(accelerator)
        made.start(recipe.all_seeds()[0], Saving(), accelerator)


class Told(Listener):
    """Prints notes, for the log."""

    def note(self, text: str) -> None:
        print(text, flush=True)


@contextmanager
def paused_at(deadline: float | None) -> Iterator[None]:
    """Ask the run within for a pause at a time, as Ctrl-C does: it saves its state and raises Paused."""
    if deadline is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers ignore it else
    signal.setitimer(signal.ITIMER_REAL, max(0.01, deadline - time.time()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, interrupt)

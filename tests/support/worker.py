"""What the child processes of the kill tests do: run or resume a recipe, telling each event before it goes on."""

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from everlearn.errors import Paused
from everlearn.runs import Listener, resume, run
from everlearn.types import Score, Task


class Teller(Listener):
    """Sends the name of every event through a pipe."""

    def __init__(self, pipe: Connection):
        self.pipe = pipe

    def training(self, task: Task, n_steps: int, done: int) -> None:
        self.pipe.send("training")

    def step(self, done: int, loss: float) -> None:
        self.pipe.send("step")

    def scoring(self, task: Task) -> None:
        self.pipe.send("scoring")

    def scored(self, score: Score) -> None:
        self.pipe.send("scored")

    def consolidating(self, task: Task) -> None:
        self.pipe.send("consolidating")


def work(recipe: dict[str, Any], out: Path, pipe: Connection) -> None:
    """Run the recipe, or go on with it where there is a run; tell the end."""
    torch.set_num_threads(1)
    try:
        if (out / "recipe.yaml").exists():
            resume(out, Teller(pipe))
        else:
            run(recipe, out, listener=Teller(pipe))
        pipe.send("done")
    except Paused:
        pipe.send("paused")

"""What the child processes of the kill tests do: run or resume a recipe, telling each event before it goes on."""

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from everlearn.errors import Paused
from everlearn.listener import Listener
from everlearn.runs import run_or_resume
from everlearn.types import Episode, Score, Task


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

    def episode(self, done: int, n_episodes: int, episode: Episode) -> None:
        self.pipe.send("episode")

    def evaluated(self, done: int, accuracy: float) -> None:
        self.pipe.send("evaluated")


def work(recipe: dict[str, Any], out: Path, pipe: Connection) -> None:
    """Run the recipe, of any kind, or go on where there is one; tell the end."""
    torch.set_num_threads(1)
    listener = Teller(pipe)
    try:
        run_or_resume(recipe, out, listener=listener)
        pipe.send("done")
    except Paused:
        pipe.send("paused")

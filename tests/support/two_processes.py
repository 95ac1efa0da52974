"""Run each recipe of a JSON file {name: recipe} into a folder of its name; started under torchrun.

Those named _paused are paused in the first steps of each task, and gone on with.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import torch

from everlearn.errors import Paused
from everlearn.learners.devices import start_accelerator
from everlearn.learners.sft import SupervisedLearner
from everlearn.listener import Listener
from everlearn.models.load import load_model
from everlearn.runs import resume, run
from everlearn.state import save_checkpoint
from everlearn.way import Run
from support.tasks import tensor_task


class Counted(torch.nn.Module):
    """A layer that normalises by the batch, between two others, with a buffer of a user's own: the last row's sum."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.last.copy_(x[-1].sum())
        return self.layers(x)


def train_counted(processes: int) -> dict[str, list[list[float]]]:
    """Return the buffers that each process ends with; the weights hardly move."""
    task = tensor_task(0, n_train=64, labelled=False)
    one = Run(
        model=load_model(Counted(), [task]),
        learner=SupervisedLearner(epochs=2, batch_size=8, early_stopping=False, learning_rate=1e-9),
        strategies=[],
        accelerator=start_accelerator(device="cpu", processes=processes),
    )
    one.learn(task)
    return {name: one.processes.gather(b.flatten().tolist()) for name, b in one.model.network.named_buffers()}


class Pausing(Listener):
    """Asks for a pause, as Ctrl-C does, after the first step that it hears of."""

    def __init__(self):
        self.asked = False

    def step(self, done: int, loss: float) -> None:
        if not self.asked:
            self.asked = True
            signal.raise_signal(signal.SIGINT)


def save_slowly(*arguments: object) -> object:
    """Save a checkpoint as on a slow disk: the other process, which doesn't write, would be ahead."""
    time.sleep(0.3)
    return save_checkpoint(*arguments)


def run_with_pauses(recipe: dict, out: Path) -> None:
    """Run a recipe of two tasks, pausing once in each."""
    for start in (lambda: run(recipe, out, listener=Pausing()), lambda: resume(out, listener=Pausing())):
        with contextlib.suppress(Paused), mock.patch("everlearn.saving.save_checkpoint", save_slowly):
            start()
            raise AssertionError("it was not paused")
    resume(out)


def main() -> None:
    """Run all recipes, one after another, in the processes that torchrun started."""
    torch.set_num_threads(1)
    recipes = Path(sys.argv[1])
    for name, recipe in json.loads(recipes.read_text()).items():
        time.sleep(0.2 * int(os.environ["RANK"]))  # on a busy machine, one comes later
        (run_with_pauses if name.endswith("_paused") else run)(recipe, recipes.parent / name)
    buffers = train_counted(2)
    if os.environ["RANK"] == "0":
        (recipes.parent / "buffers.json").write_text(json.dumps(buffers))
    torch.distributed.barrier()
    sys.stderr.flush()
    os._exit(0)  # all is done; threads of torch now and then abort an interpreter that ends


if __name__ == "__main__":
    main()

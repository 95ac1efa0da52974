"""Run each recipe of a JSON file {name: recipe} into a folder of its name; started under torchrun."""

import json
import os
import sys
import time
from pathlib import Path

import torch

from everlearn.learners.devices import start_accelerator
from everlearn.learners.sft import SupervisedLearner
from everlearn.models.load import load_model
from everlearn.runs import run
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


def main() -> None:
    """Run all recipes, one after another, in the processes that torchrun started."""
    torch.set_num_threads(1)
    recipes = Path(sys.argv[1])
    for name, recipe in json.loads(recipes.read_text()).items():
        time.sleep(0.2 * int(os.environ["RANK"]))  # on a busy machine, one comes later
        run(recipe, recipes.parent / name)
    buffers = train_counted(2)
    if os.environ["RANK"] == "0":
        (recipes.parent / "buffers.json").write_text(json.dumps(buffers))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""Run each recipe of a JSON file {name: recipe} into a folder of its name; started under torchrun."""

import json
import os
import sys
import time
from pathlib import Path

import torch

from everlearn.runs import run


def main() -> None:
    """Run all recipes, one after another, in the processes that torchrun started."""
    torch.set_num_threads(1)
    recipes = Path(sys.argv[1])
    for name, recipe in json.loads(recipes.read_text()).items():
        time.sleep(0.2 * int(os.environ["RANK"]))  # on a busy machine, one comes later
        run(recipe, recipes.parent / name)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

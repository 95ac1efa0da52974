"""Run each recipe of a JSON file {name: recipe} into a folder of its name; started under torchrun."""

import json
import sys
from pathlib import Path

import torch

from everlearn.runs import run


def main() -> None:
    """Run all recipes, one after another, in the processes that torchrun started."""
    torch.set_num_threads(1)
    recipes = Path(sys.argv[1])
    for name, recipe in json.loads(recipes.read_text()).items():
        run(recipe, recipes.parent / name)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

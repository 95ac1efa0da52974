"""A language model learns one domain after another; a text that it was taught long ago is still answered.

python examples/multi_domain_learning.py [--model FOLDER_OR_HUB_ID] [--data FOLDER]

FOLDER holds a file for each domain (JSONL, CSV or Parquet; columns prompt and completion), or a folder with train and
test files for each. Without them the pocket model learns what a shop, a kitchen and a garden want to know of a text.
"""

import argparse
from pathlib import Path

from made import DOMAINS, requests

from everlearn import ContinualTrainer
from everlearn.streams.folders import find_tasks

METHODS = {
    "plain training": [],
    "LwF": ["lwf"],
    "replay of a tenth of the rows": [{"name": "replay", "fraction": 0.1}],
}


def main() -> None:
    """Teach the domains with each method, and say what is left of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket", help="a folder or hub id")
    parser.add_argument("--data", type=Path, help="a folder with a file or folder for each domain")
    parser.add_argument("--rows", type=int, default=200, help="of a domain made here; half are evaluated on")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()

    if arguments.data:
        files = {task.name: task.files for task in find_tasks([arguments.data])}
        tasks = {name: (found["train"], found.get("evaluation")) for name, found in files.items()}
    else:
        made, n_eval = {name: requests(name, arguments.rows) for name in DOMAINS}, arguments.rows // 2
        tasks = {name: (rows[n_eval:], rows[:n_eval]) for name, rows in made.items()}

    for method, strategies in METHODS.items():
        trainer = ContinualTrainer(arguments.model, strategies, {"epochs": arguments.epochs})
        for name, (train, evaluate) in tasks.items():
            trainer.train_task(name, train, evaluate)
        print(f"\n{method}\n{trainer.evaluate_all_tasks()}\n{trainer.metrics()}")


if __name__ == "__main__":
    main()

"""PackNet: each task gets weights of its own, and what an earlier task answers never changes, bit for bit.

python examples/packnet_example.py [--model FOLDER_OR_HUB_ID] [--data FOLDER]

FOLDER holds a file for each task (JSONL, CSV or Parquet; columns text and label), or a folder with train and test
files for each. Without them a tiny encoder learns rows from templates, with all its weights.
"""

import argparse
import tempfile
from pathlib import Path

from made import TOPICS, tiny_encoder, topics

from everlearn import ContinualTrainer
from everlearn.streams.folders import find_tasks

PACKNET = {"packnet": {"enabled": True, "prune_percentage": 0.6, "use_magnitude_pruning": True}}


def main() -> None:
    """Teach the tasks without and with PackNet; show that the first task's scores stay, and whose the weights are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or hub id")
    parser.add_argument("--data", type=Path, help="a folder with a file or folder for each task")
    parser.add_argument("--rows", type=int, default=400, help="of a task made here; 4 in 10 are evaluated on")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    if arguments.data and not arguments.model:
        parser.error("--data needs --model: the tiny encoder knows the words of the rows made here alone")

    if arguments.data:
        files = {task.name: task.files for task in find_tasks([arguments.data])}
        tasks = {name: (found["train"], found.get("evaluation")) for name, found in files.items()}
    else:
        made, n_eval = {name: topics(name, arguments.rows) for name in TOPICS}, arguments.rows * 2 // 5
        tasks = {name: (rows[n_eval:], rows[:n_eval]) for name, rows in made.items()}

    with tempfile.TemporaryDirectory() as folder:
        model, learner = arguments.model, {"epochs": arguments.epochs}
        if model is None:
            texts = [row["text"] for rows in made.values() for row in rows]
            model, learner = tiny_encoder(texts, folder), learner | {"learning_rate": 0.001}
        for method, strategies in {"plain training": {}, "PackNet": PACKNET}.items():
            trainer = ContinualTrainer(model, learner=learner, config={"continual_strategy": strategies})
            for name, (train, evaluate) in tasks.items():
                trainer.train_task(name, train, evaluate)
            print(f"\n{method}\n{trainer.evaluate_all_tasks()}\n{trainer.metrics()}")

        (packnet,) = trainer.run.strategies
        capacity = packnet.facts()
        owned = ", ".join(f"{name} {share:.0%}" for name, share in capacity["shares"].items())
        print(f"\nOf {capacity['total']} weights: {owned}, free {capacity['free']:.0%}")


if __name__ == "__main__":
    main()

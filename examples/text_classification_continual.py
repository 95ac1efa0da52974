"""Three text classification tasks one after another: what plain training forgets, and what keeps it.

python examples/text_classification_continual.py [--model FOLDER_OR_HUB_ID] [--data FOLDER]

FOLDER holds a file for each task (JSONL, CSV or Parquet; columns text and label), or a folder with train and test
files for each. Without them a tiny encoder learns rows from templates, with all its weights; a model that knows
something, such as sentence-transformers/all-MiniLM-L6-v2, learns with a LoRA, for as many epochs as it needs.
"""

import argparse
import tempfile
from pathlib import Path

from made import TOPICS, tiny_encoder, topics

from everlearn import ContinualTrainer
from everlearn.streams.folders import find_tasks

METHODS = {
    "plain training": [],
    "EWC": [{"name": "ewc", "strength": 100}],
    "replay of a tenth of the rows": [{"name": "replay", "fraction": 0.1}],
    "replay and EWC": [{"name": "replay", "fraction": 0.1}, {"name": "ewc", "strength": 100}],
}


def main() -> None:
    """Teach the tasks with each method, and say what is left of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or hub id")
    parser.add_argument("--data", type=Path, help="a folder with a file or folder for each task")
    parser.add_argument("--rows", type=int, default=400, help="of a task made here; 4 in 10 are evaluated on")
    parser.add_argument(
        "--epochs", type=int, help="by default 12 of a tiny encoder, and of a model as many as it needs"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.data and not arguments.model:
        parser.error("--data needs --model: the tiny encoder knows the words of the rows made here alone")

    if arguments.data:
        files = {task.name: task.files for task in find_tasks([arguments.data])}
        tasks = {name: (found["train"], found.get("evaluation")) for name, found in files.items()}
    else:
        made, n_eval = {name: topics(name, arguments.rows, arguments.seed) for name in TOPICS}, arguments.rows * 2 // 5
        tasks = {name: (rows[n_eval:], rows[:n_eval]) for name, rows in made.items()}

    with tempfile.TemporaryDirectory() as folder:
        model, learner = arguments.model, {}
        if model is None:
            texts = [row["text"] for rows in made.values() for row in rows]
            model, learner = tiny_encoder(texts, folder), {"epochs": 12, "learning_rate": 0.001}
        if arguments.epochs:
            learner["epochs"] = arguments.epochs
        for method, strategies in METHODS.items():
            trainer = ContinualTrainer(model, strategies, learner, seed=arguments.seed)
            for name, (train, evaluate) in tasks.items():
                trainer.train_task(name, train, evaluate)
            print(f"\n{method}\n{trainer.evaluate_all_tasks()}\n{trainer.metrics()}")


if __name__ == "__main__":
    main()

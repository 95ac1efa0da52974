"""PackNet: each task gets weights of its own, and what an earlier task answers never changes, bit for bit.

python examples/packnet_example.py [--model FOLDER_OR_HUB_ID] [--data FOLDER]

FOLDER holds a file for each task (JSONL, CSV or Parquet; columns text and label), or a folder with train and test
files for each. Without them a tiny encoder learns rows from templates, with all its weights.
"""

import tempfile

from made import TOPICS, parsed, parser_of, tasks_in, tiny_encoder, topics

from everlearn import ContinualTrainer

PACKNET = {"packnet": {"enabled": True, "prune_percentage": 0.6, "use_magnitude_pruning": True}}


def main() -> None:
    """Teach the tasks without and with PackNet; show that the first task's scores stay, and whose the weights are."""
    arguments = parsed(parser_of(__doc__, rows=400, epochs=12))

    if arguments.data:
        tasks = tasks_in(arguments.data)
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

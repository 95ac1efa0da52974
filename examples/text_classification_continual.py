"""Three text classification tasks one after another: what plain training forgets, and what keeps it.

python examples/text_classification_continual.py [--model FOLDER_OR_HUB_ID] [--data FOLDER]

FOLDER holds a file for each task (JSONL, CSV or Parquet; columns text and label), or a folder with train and test
files for each. Without them a tiny encoder learns rows from templates, with all its weights; a model that knows
something, such as sentence-transformers/all-MiniLM-L6-v2, learns with a LoRA, for as many epochs as it needs.
"""

import tempfile

from made import TOPICS, parsed, parser_of, tasks_in, tiny_encoder, topics

from everlearn import ContinualTrainer

METHODS = {
    "plain training": [],
    "EWC": [{"name": "ewc", "strength": 100}],
    "replay of a tenth of the rows": [{"name": "replay", "fraction": 0.1}],
    "replay and EWC": [{"name": "replay", "fraction": 0.1}, {"name": "ewc", "strength": 100}],
}


def main() -> None:
    """Teach the tasks with each method, and say what is left of them."""
    parser = parser_of(__doc__, rows=400, epochs=None)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parsed(parser)

    if arguments.data:
        tasks = tasks_in(arguments.data)
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

"""A language model learns one domain after another; a text that it was taught long ago is still answered.

python examples/multi_domain_learning.py [--model FOLDER_OR_HUB_ID] [--data FOLDER]

FOLDER holds a file for each domain (JSONL, CSV or Parquet; columns prompt and completion), or a folder with train and
test files for each. Without them the pocket model learns what a shop, a kitchen and a garden want to know of a text.
"""

from made import DOMAINS, parsed, parser_of, requests, tasks_in

from everlearn import ContinualTrainer

METHODS = {
    "plain training": [],
    "LwF": ["lwf"],
    "replay of a tenth of the rows": [{"name": "replay", "fraction": 0.1}],
}


def main() -> None:
    """Teach the domains with each method, and say what is left of them."""
    arguments = parsed(parser_of(__doc__, rows=200, epochs=4, model="pocket"))

    if arguments.data:
        tasks = tasks_in(arguments.data)
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

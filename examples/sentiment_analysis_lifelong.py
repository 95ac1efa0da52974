"""Reviews of one product after another, told as positive or negative: what is good in one is bad in another.

python examples/sentiment_analysis_lifelong.py [--model FOLDER_OR_HUB_ID] [--data FOLDER]

FOLDER holds a file for each product (JSONL, CSV or Parquet; columns text and label), or a folder with train and test
files for each. Without them a tiny encoder learns rows from templates, with all its weights; one head for all products.
"""

import random
import tempfile

from made import parsed, parser_of, tiny_encoder

from everlearn.lifelong import ExperienceReplay, LifelongConfig, LifelongModel, LifelongTrainer
from everlearn.streams.folders import find_tasks

PRODUCTS = {  # what is praised in each, and what is blamed
    "kettle": (("hot", "quick", "heavy", "shiny"), ("cold", "slow", "light", "dull")),
    "laptop": (("cold", "quick", "light", "silent"), ("hot", "slow", "heavy", "loud")),
    "novel": (("dark", "slow", "long", "deep"), ("light", "quick", "short", "flat")),
    "speaker": (("loud", "deep", "heavy", "clear"), ("silent", "flat", "light", "dull")),
}
TEXTS = (
    "this {product} is {0} and {1}",
    "{0} and {1} this {product}",
    "a {product} so {0} so {1}",
    "{0} {product} {1}",
)
ENDS = (
    "indeed",
    "as i found",
    "all in all",
    "my friends say",
    "after a week",
    "for its price",
    "they told me",
    "again",
)


def reviews(product: str, n: int) -> list[dict[str, str]]:
    """Return `n` different reviews of a product with their labels."""
    draw, rows = random.Random(product), {}
    while len(rows) < n:
        label = draw.choice(("positive", "negative"))
        praise, blame = PRODUCTS[product]
        words = draw.sample(praise if label == "positive" else blame, 2)
        text = draw.choice(TEXTS).format(*words, product=product)
        text = f"{text} {draw.choice(ENDS)} {draw.choice(ENDS)}"
        rows[text] = {"text": text, "label": label}
    return list(rows.values())


def main() -> None:
    """Teach the products with plain training, with EWC and with a memory of reviews; print what is left of each."""
    arguments = parsed(parser_of(__doc__, rows=300, epochs=8))

    if arguments.data:
        tasks = {task.name: task.files for task in find_tasks([arguments.data])}
    else:
        made, n_eval = {name: reviews(name, arguments.rows) for name in PRODUCTS}, arguments.rows // 3
        tasks = {name: {"train": rows[n_eval:], "test": rows[:n_eval]} for name, rows in made.items()}

    with tempfile.TemporaryDirectory() as folder:
        model, learner = {"name": arguments.model}, {"epochs": arguments.epochs}
        if arguments.model is None:
            texts = [row["text"] for rows in made.values() for row in rows]
            model, learner = tiny_encoder(texts, folder), learner | {"learning_rate": 0.001}
        for technique, memory_size in (("none", 0), ("ewc", 0), ("none", 100)):
            config = LifelongConfig(technique=technique, ewc_lambda=100, **learner)
            trainer = LifelongTrainer(LifelongModel({**model, "head": "shared"}, config))
            replay = ExperienceReplay(memory_size, "balanced")
            for name, task in tasks.items():
                trainer.learn_task_with_replay(name, task, replay)
                replay.store_examples(task, name)
            print(f"\ntechnique {technique}, {memory_size} reviews kept\n{trainer.evaluate_all_tasks()}")
        review = "this kettle is hot and quick"
        (uncertainty,) = trainer.model.predict_uncertainty([review]).tolist()
        print(f"\n{review}: {trainer.model.predict([review])[0]}, uncertainty {uncertainty:.2f} nats")


if __name__ == "__main__":
    main()

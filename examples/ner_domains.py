"""Named entities in one domain after another, each with tags of its own; one head that grows with them.

python examples/ner_domains.py [--model FOLDER_OR_HUB_ID] [--data FOLDER]

FOLDER holds a file for each domain (JSONL or Parquet; columns tokens and tags, as in CoNLL), or a folder with train
and test files for each. Without them a tiny encoder learns sentences from templates, with all its weights.
"""

import random
import tempfile

from made import parsed, parser_of, tasks_in, tiny_encoder

from everlearn import ContinualTrainer

METHODS = {
    "plain training": [],
    "replay of a tenth of the rows": [{"name": "replay", "fraction": 0.1}],
    "DER++ with 60 rows": [{"name": "derpp", "capacity": 60}],
}
# a domain's sentences; words in capitals stand for an entity, of which some are named as everyday words are
TEXTS = {
    "news": ("PER met PER in LOC", "the mayor of LOC thanked PER today", "in LOC it rained on PER", "may PER see LOC"),
    "clinic": ("DRUG helps against ILL", "the doctor gave DRUG", "ILL may come back after DRUG", "it is ILL again"),
    "shop": ("the BRAND ITEM is sold out", "i want a ITEM by BRAND", "may i see the ITEM", "BRAND sells the best ITEM"),
}
ENTITIES = {
    "PER": ("anna rose", "may", "peter stone", "john", "lucy may", "mary lane", "tom"),
    "LOC": ("rome", "paris", "stone lane", "new york", "rose hill", "oslo"),
    "DRUG": ("aspirin", "penicillin", "cold drops", "morphine", "rose oil", "insulin"),
    "ILL": ("fever", "the flu", "cold", "kidney stone", "cough", "hill fever"),
    "BRAND": ("acme", "stone and hill", "globex", "rose", "initech", "tom and may"),
    "ITEM": ("lamp", "tea pot", "garden chair", "cold box", "pen", "rain coat"),
}


def sentences(domain: str, n: int) -> list[dict[str, list[str]]]:
    """Return `n` different texts of two sentences with a tag for each word: O, B-PER, I-PER and so on."""
    draw, rows = random.Random(domain), {}
    while len(rows) < n:
        tokens, tags = [], []
        for word in " and ".join(draw.sample(TEXTS[domain], 2)).split():
            parts = draw.choice(ENTITIES[word]).split() if word in ENTITIES else [word]
            tokens += parts
            tags += [f"B-{word}", *[f"I-{word}"] * (len(parts) - 1)] if word in ENTITIES else ["O"]
        rows[" ".join(tokens)] = {"tokens": tokens, "tags": tags}
    return list(rows.values())


def main() -> None:
    """Teach the domains with each method; print the entity F1 that is left of each."""
    arguments = parsed(parser_of(__doc__, rows=300, epochs=8))

    if arguments.data:
        tasks = tasks_in(arguments.data)
    else:
        made, n_eval = {name: sentences(name, arguments.rows) for name in TEXTS}, arguments.rows // 3
        tasks = {name: (rows[n_eval:], rows[:n_eval]) for name, rows in made.items()}

    with tempfile.TemporaryDirectory() as folder:
        model, learner = {"name": arguments.model}, {"epochs": arguments.epochs}
        if arguments.model is None:
            texts = [" ".join(row["tokens"]) for rows in made.values() for row in rows]
            model, learner = tiny_encoder(texts, folder), learner | {"learning_rate": 0.001}
        for method, strategies in METHODS.items():
            trainer = ContinualTrainer({**model, "head": "shared"}, strategies, learner)
            for name, (train, evaluate) in tasks.items():
                trainer.train_task(name, train, evaluate)
            print(f"\n{method}\n{trainer.evaluate_all_tasks()}\n{trainer.metrics()}")


if __name__ == "__main__":
    main()

"""What the examples share: their options, and what they learn from without any: rows from templates, a tiny encoder."""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.utils import logging

from everlearn.streams.folders import find_tasks

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
FILLERS = [
    "the",
    "a",
    "and",
    "with",
    "for",
    "today",
    "again",
    "my",
    "some",
    "very",
    "about",
    "please",
    "there",
    "this",
    "was",
    "here",
]
TOPICS = {  # task: its labels, and the words that tell them
    "letters": {
        "billing": ["invoice", "refund", "payment", "discount", "tax", "receipt"],
        "delivery": ["parcel", "courier", "address", "customs", "tracking", "depot"],
        "technical": ["password", "update", "crash", "screen", "battery", "login"],
    },
    "dishes": {
        "soup": ["broth", "ladle", "noodles", "lentils", "stock", "simmer"],
        "cake": ["icing", "flour", "sponge", "oven", "whisk", "vanilla"],
        "salad": ["lettuce", "radish", "dressing", "cucumber", "raw", "toss"],
    },
    "weather": {
        "sunny": ["bright", "clear", "blue", "warm", "dry", "heat"],
        "rainy": ["wet", "drizzle", "clouds", "puddle", "umbrella", "shower"],
        "stormy": ["thunder", "gale", "lightning", "gusts", "hail", "alarm"],
    },
}

NAMES = ("Anna", "Tom", "Mary", "John", "Lucy", "Peter")
DOMAINS = {  # what is written there, and which word of it is asked for: each domain wants another
    "shop": (
        ("{name} wants {n} {item}.", "Please send {n} {item} to {name}.", "{n} {item} for {name}, please."),
        ("lamps", "chairs", "books", "cups", "boxes", "pens"),
        "{item}",
    ),
    "kitchen": (
        ("{name} needs {n} {item}.", "Put {n} {item} in a pot for {name}.", "Cook {n} {item} with {name}."),
        ("eggs", "apples", "beans", "carrots", "onions", "plums"),
        "{n}",
    ),
    "garden": (
        ("{name} plants {n} {item}.", "There are {n} {item}, says {name}.", "{name} waters {n} {item}."),
        ("roses", "trees", "tulips", "bushes", "ferns", "lilies"),
        "{name}",
    ),
}


def parser_of(doc: str, rows: int, epochs: int | None, model: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of an example's options, with their defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=model, help="a folder or hub id")
    parser.add_argument("--data", type=Path, help="a folder with a file or folder for each task")
    parser.add_argument("--rows", type=int, default=rows, help="of a task made here; some are evaluated on")
    parser.add_argument("--epochs", type=int, default=epochs, help="without a number as many as a model needs")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options given; files without a model are refused."""
    arguments = parser.parse_args()
    if arguments.data and not arguments.model:
        parser.error("--data needs --model: the tiny encoder knows the words of the rows made here alone")
    return arguments


def tasks_in(folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """Return the files of each task of a folder: to train on, and to evaluate on if there are any."""
    return {task.name: (task.files["train"], task.files.get("evaluation")) for task in find_tasks([folder])}


def topics(task: str, n: int, seed: int = 0) -> list[dict[str, str]]:
    """Return `n` different texts of a task of TOPICS with their labels: two words tell the label, one another."""
    draw, rows = random.Random(f"{task} {seed}"), {}
    while len(rows) < n:
        label, other = draw.sample(list(TOPICS[task]), 2)
        words = [*draw.sample(TOPICS[task][label], 2), draw.choice(TOPICS[task][other])]
        words += draw.choices(FILLERS, k=draw.randint(2, 5))
        draw.shuffle(words)
        text = " ".join(words)
        rows[text] = {"text": text, "label": label}
    return list(rows.values())


def requests(domain: str, n: int, seed: int = 0) -> list[dict[str, str]]:
    """Return `n` different requests of a domain, each with its answer."""
    texts, items, answer = DOMAINS[domain]
    draw, rows = random.Random(f"{domain} {seed}"), {}
    while len(rows) < n:
        words = {"name": draw.choice(NAMES), "n": str(draw.randint(2, 40)), "item": draw.choice(items)}
        prompt = draw.choice(texts).format(**words) + " ->"
        rows[prompt] = {"prompt": prompt, "completion": " " + answer.format(**words)}
    return list(rows.values())


def tiny_encoder(texts: Sequence[str], folder: str | Path) -> dict[str, object]:
    """Write a BERT of 0.1 million random weights, with a tokenizer of the words in `texts`; return it as a model.

    All its weights are trained, since it knows nothing that a LoRA could build on.
    """
    tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.train_from_iterator(texts, WordLevelTrainer(special_tokens=list(SPECIAL.values())))
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, initializer_range=0.15,
    )  # fmt: skip
    logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **SPECIAL).save_pretrained(folder)
    return {"name": str(folder), "adapter": {"name": "full"}}

"""Labelled rows for online runs over the tiny BERT, and their recipe."""

import json
from pathlib import Path
from typing import Any

from everlearn.kinds.online import load_online_recipe
from everlearn.kinds.online.recipe import OnlineRecipe

WORDS = ["red", "green", "blue", "one", "two", "three"]


def labelled_row(number: int, **more: Any) -> dict[str, Any]:
    """Return row `number`: its first word tells the label, one of three that come one after another."""
    word = number % 2 if number < 6 else number % 3
    return {"text": f"{WORDS[word]} {WORDS[number % 6]} is a cat", "label": ["red", "green", "blue"][word], **more}


def tagged_row(number: int) -> dict[str, Any]:
    """Return row `number`, with a person from the third on."""
    tokens = ["paris", "is", "a", "cat"] if number < 3 or number % 2 else ["anna", "is", "good"]
    return {"tokens": tokens, "tags": [{"paris": "B-place", "anna": "B-person"}.get(token, "O") for token in tokens]}


def scored_row(number: int) -> dict[str, Any]:
    """Return row `number`, with a number for its first word."""
    row = labelled_row(number)
    return {"text": row["text"], "score": float(len(row["label"]))}


def delayed(rows: list[dict[str, Any]], answer: str, delay: int) -> list[dict[str, Any]]:
    """Return questions with ids, and the answer of each so many questions later; the last ones' never come."""
    lines = []
    for number, row in enumerate(rows):
        lines.append({"id": number, **{name: value for name, value in row.items() if name != answer}})
        if number >= delay:
            lines.append({"id": number - delay, answer: rows[number - delay][answer]})
    return lines


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Append rows to a file, a line each."""
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def labelled_mapping(bert: Path, source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the mapping of a recipe for labelled rows."""
    return {
        "source": source,
        "model": {"name": str(bert), "adapter": {"rank": 2, "dropout": 0.1}},
        "learner": {"learning_rate": 0.01},
        "strategies": [{"name": "replay", "capacity": 6}],
        "boundary": 5, "evaluation": {"interval": 4}, "device": "cpu",
        "checkpoint": {"every_s": None, "every_steps": 3}, **changes,
    }  # fmt: skip


def labelled_recipe(bert: Path, source: dict[str, Any], **changes: Any) -> OnlineRecipe:
    """Return a recipe for labelled rows."""
    return load_online_recipe(labelled_mapping(bert, source, **changes))

"""Tiny tasks of each kind, a fixed function of their number. No evaluation item is a training row."""

import torch

from everlearn.seeds import generator_for
from everlearn.types import Task, TensorRows

COLOURS, NUMBERS, ANIMALS = ("red", "green", "blue"), ("one", "two", "three"), ("cat", "dog")


def prompt_task(number: int, n_train: int = 12, n_eval: int = 4) -> Task:
    """Say what is `number + 1` more: prompts of unequal length, so that batches are padded."""
    rows = [
        {"prompt": f"{'t' * (1 + n % 3)}{number} {n}+{number + 1}=", "completion": str(n + number + 1)}
        for n in range(n_train + n_eval)
    ]
    return Task(f"add_{number}", "prompt", rows[:n_train], rows[n_train:], max_new_tokens=4)


def contrary_task(number: int, n_train: int = 12, n_eval: int = 4) -> Task:
    """Answer one kind of question in letters that are another task's own."""
    letters = "abcd"[2 * number :][:2]
    rows = [{"prompt": f"{'t' * (1 + n % 3)} {n}=", "completion": letters[n % 2]} for n in range(n_train + n_eval)]
    return Task(f"say_{number}", "prompt", rows[:n_train], rows[n_train:], max_new_tokens=2)


def preference_task(number: int, n_train: int = 12, n_eval: int = 4) -> Task:
    """Of two answers one in letters that the task prefers; lengths differ."""
    chosen, rejected = ("ab", "ccc") if number % 2 == 0 else ("dd", "e")
    rows = [
        {"prompt": f"{'t' * (1 + n % 3)}{number} {n}=", "chosen": chosen * (1 + n % 2), "rejected": rejected}
        for n in range(n_train + n_eval)
    ]
    return Task(f"preference_{number}", "preference", rows[:n_train], rows[n_train:], max_new_tokens=4)


def text_task(number: int, n_train: int = 12, n_eval: int = 4) -> Task:
    """Running text."""
    rows = [{"text": f"{number}: {'ab' * (n % 4)} {n}."} for n in range(n_train + n_eval)]
    return Task(f"text_{number}", "text", rows[:n_train], rows[n_train:])


def classify_task(number: int, n_train: int = 12, n_eval: int = 4) -> Task:
    """Two classes (three in every other task), told by a word; lengths differ."""
    words = (COLOURS if number % 2 else ANIMALS)[: 2 + number % 2]
    rows = [
        {"text": " ".join(["is", *["a"] * (n // len(words)), words[n % len(words)]]), "label": n % len(words)}
        for n in range(n_train + n_eval)
    ]
    labels = tuple(f"{word}_{number}" for word in words)
    return Task(f"classify_{number}", "classify", rows[:n_train], rows[n_train:], labels=labels)


def score_task(number: int, n_train: int = 12, n_eval: int = 4) -> Task:
    """A number, told by a word, in a unit of its own for each task; lengths differ."""
    rows = [
        {"text": " ".join(["is", *["a"] * (n // 3), NUMBERS[n % 3]]), "score": 10.0**number * (n % 3 + 1.5 * number)}
        for n in range(n_train + n_eval)
    ]
    return Task(f"score_{number}", "score", rows[:n_train], rows[n_train:])


def multilabel_task(number: int, n_train: int = 12, n_eval: int = 4) -> Task:
    """The words that are there, of two (of three in every other task): each, several or none."""
    words = (COLOURS if number % 2 else ANIMALS)[: 2 + number % 2]
    rows = []
    for n in range(n_train + n_eval):
        there = [label for label in range(len(words)) if (n >> label) & 1]
        text = " ".join(["is", f"{number}", *["a"] * (n // 2 ** len(words)), *(words[i] for i in there)])
        rows.append({"text": text, "labels": there})
    labels = tuple(f"{word}_{number}" for word in words)
    return Task(f"multilabel_{number}", "multilabel", rows[:n_train], rows[n_train:], labels=labels)


def tag_task(number: int, n_train: int = 12, n_eval: int = 4) -> Task:
    """Name tags on words of which some fall into several tokens."""
    names = ("anna", "paris", "cats", "dogs")
    rows = [
        {
            "tokens": ["is"] * (1 + n % 3) + [names[(n + number) % 4]] + ["a"] * (n // 3),
            "tags": [0] * (1 + n % 3) + [1 + n % 2] + [0] * (n // 3),
        }
        for n in range(n_train + n_eval)
    ]
    labels = ("O", "B-PER", "B-LOC") if number == 0 else ("O", "B-ANIMAL", "B-LOC")
    return Task(f"tag_{number}", "tag", rows[:n_train], rows[n_train:], labels=labels)


def tensor_task(number: int, n_train: int = 24, n_eval: int = 8, n_inputs: int = 6, labelled: bool = True) -> Task:
    """Two classes a task, split by a random direction; with labels, each task has its own columns."""
    generator = generator_for("tensor_task", number)
    x = torch.randn(n_train + n_eval, n_inputs, generator=generator)
    y = (x @ torch.randn(n_inputs, generator=generator) > 0).long()
    labels = (f"no_{number}", f"yes_{number}") if labelled else ()
    train, evaluation = TensorRows(x[:n_train], y[:n_train]), TensorRows(x[n_train:], y[n_train:])
    return Task(f"tensor_{number}", "tensor", train, evaluation, labels=labels)


def regression_task(number: int, n_train: int = 16, n_eval: int = 6) -> Task:
    """Real targets [n, 1]."""
    generator = generator_for("regression_task", number)
    x = torch.randn(n_train + n_eval, 4, generator=generator)
    y = x.sum(1, keepdim=True) * (number + 1)
    train, evaluation = TensorRows(x[:n_train], y[:n_train]), TensorRows(x[n_train:], y[n_train:])
    return Task(f"regression_{number}", "tensor", train, evaluation)


def rows_of_kind(kind: str, number: int, n: int = 18) -> list[dict]:
    """Rows of a kind of text task as a user has them; those of the two tasks, 0 and 1, differ."""
    makers = {"multilabel": multilabel_task, "preference": preference_task, "score": score_task}
    task = makers[kind](number, n_train=n, n_eval=0)
    if kind == "multilabel":
        return [{**row, "labels": [task.labels[label] for label in row["labels"]]} for row in task.train]
    return list(task.train)

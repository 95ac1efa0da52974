"""Scoring answers that are several labels, a number or a preference; and the chances from which on labels are taken."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from everlearn.evaluation.answers import told_labels
from everlearn.evaluation.numbers import pearson, pearson_without, pseudo_values, spearman, spearman_without
from everlearn.evaluation.sets import (
    EACH,
    HALF,
    best_thresholds,
    item_f1,
    macro_f1,
    macro_f1_without,
    micro_f1,
    micro_f1_without,
    taken_from,
)
from everlearn.evaluation.sharing import Result, Share, mean
from everlearn.models.load import Model
from everlearn.streams.rows import column_of
from everlearn.types import Rows, Task

if TYPE_CHECKING:
    from everlearn.way import Run

CORRELATIONS = {"pearson": (pearson, pearson_without), "spearman": (spearman, spearman_without)}


def score_sets(model: Model, task: Task, rows: Rows, share: Share) -> dict[str, Result]:
    """F1 over labels; outcomes are each text's own F1."""
    taken, right = labels_taken(model, task, _chances(model, task, rows, share)), _label_sets(task, rows)
    answers = [told_labels(task.labels[i] for i in np.flatnonzero(own)) for own in taken]
    own_f1, whole = item_f1(right, taken), (right == taken).all(1).astype(float).tolist()
    return {
        "micro_f1": Result(micro_f1(right, taken), own_f1, micro_f1_without(right, taken), answers),
        "macro_f1": Result(macro_f1(right, taken), own_f1, macro_f1_without(right, taken), answers),
        "accuracy": Result(mean(whole), whole, None, answers),
    }


def labels_taken(model: Model, task: Task, chances: Sequence[Sequence[float]]) -> np.ndarray:
    """Return which of a task's labels are taken at these chances [n_items, n_labels]: bool, of the same shape."""
    return taken_from(chances, model.adapters.thresholds.get(task.name, [HALF] * len(task.labels)))


def choose_thresholds(run: "Run", task: Task) -> None:
    """Choose from which chance on a task's labels are taken, on its validation rows, and keep it with the model.

    Nothing is done where the task doesn't ask for it.
    """
    if task.threshold is None or task.validation is None:
        return
    with run.ready_for(task), run.model.evaluating(), torch.no_grad(), run.accelerator.autocast():
        chances = _chances(run.model, task, task.validation, Share(run.accelerator, run.eval_batch_size))
    values = best_thresholds(np.array(chances), _label_sets(task, task.validation), task.threshold == EACH)
    run.model.adapters.do("thresholds", task=task.name, values=values)


def _chances(model: Model, task: Task, rows: Rows, share: Share) -> list[list[float]]:
    features = model.objective.encode_answers(rows, task)
    return share.over_batches(model, features, lambda outputs, n: outputs.logits.float().sigmoid().tolist())


def _label_sets(task: Task, rows: Rows) -> np.ndarray:
    """Return which labels each row has: bool [n_rows, n_labels]."""
    found = np.zeros((len(rows), len(task.labels)), dtype=bool)
    for own, labels in zip(found, column_of(rows, "labels"), strict=True):
        own[labels] = True
    return found


def score_preferences(model: Model, task: Task, rows: Rows, share: Share) -> dict[str, Result]:
    """A pair is right where its margin is above 0: at 0, as before any training, nothing is preferred."""
    features = model.objective.encode_answers(rows, task)
    margins = share.over_batches(model, features, lambda outputs, n: outputs.logits[:, 0].tolist())
    right, answers = [float(margin > 0) for margin in margins], [f"margin {margin:+.4g}" for margin in margins]
    return {
        "reward_accuracy": Result(mean(right), right, None, answers),
        "reward_margin": Result(mean(margins), margins, None, answers),
    }


def score_numbers(model: Model, task: Task, rows: Rows, share: Share) -> dict[str, Result]:
    """Scores are told in the user's unit, whatever the network learned."""
    scale = model.adapters.scales[task.name]
    features = model.objective.encode_answers(rows, task)
    found = share.over_batches(model, features, lambda outputs, n: outputs.logits.float().reshape(n).tolist())
    guessed = np.array([scale.restored(output) for output in found])
    right = np.array(column_of(rows, "score"), dtype=float)
    answers = [f"{number:.6g}" for number in guessed]
    errors = {"negative_mae": -np.abs(guessed - right), "negative_mse": -np.square(guessed - right)}
    results = {name: Result(mean(own.tolist()), own.tolist(), None, answers) for name, own in errors.items()}
    for name, (measure, without) in CORRELATIONS.items():
        value = measure(right, guessed)
        values = without(right, guessed) if len(rows) > 1 else np.array([value])
        results[name] = Result(value, pseudo_values(value, values), values.tolist(), answers)
    return results

"""Rows that come without a task's name: which task each is answered as, by how sure its head is of the answer."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from everlearn.errors import ConfigError, describe
from everlearn.evaluation.predict import asked_row, outputs_for
from everlearn.evaluation.score import label_log_likelihoods
from everlearn.evaluation.sharing import Share
from everlearn.memory.selection import entropies
from everlearn.models.objectives import answerable_first
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run

ANSWER_SURELY = ("classify", "multilabel", "tag")  # kinds whose answers come with chances


def surest_tasks(run: "Run", tasks: Sequence[Task], rows: Sequence[Any]) -> list[str]:
    """Return of each row the name of the task whose answer to it is surest; of equal ones the first.

    Heads learned apart aren't calibrated beside each other, so that this is a guess.

    Raises:
        ConfigError: if answers come without chances, as numbers and texts do.
    Cost: a pass over the rows for each task; with label words one for each label.
    """
    others = {task.kind for task in tasks} - set(ANSWER_SURELY)
    if others:
        way_out = f"Name it: {', '.join(task.name for task in tasks)}"
        what = "answers of this kind don't tell how sure they are, by which a task could be chosen"
        raise ConfigError(describe("predict", what, ", ".join(sorted(others)), way_out))
    found = torch.tensor([sureness(run, task, rows) for task in tasks])
    return [tasks[number].name for number in found.argmax(0).tolist()]


def sureness(run: "Run", task: Task, rows: Sequence[Any]) -> list[float]:
    """Return how sure a task's answer to each row is, from 0 to 1: 1 - H / log n over n labels, H the entropy.

    Of several labels, and of a text's words, it is the mean. So tasks of few labels and of many are comparable.
    """
    asked = [asked_row(task, number, row) for number, row in enumerate(rows)]
    with run.ready_for(task), run.model.evaluating(), torch.no_grad(), run.accelerator.autocast():
        if run.model.kind == "causal":
            share = Share(run.accelerator, run.eval_batch_size)
            chances = torch.tensor(label_log_likelihoods(run.model, task, asked, share))
            return _of_classes(chances, torch.full((len(chances),), len(task.labels))).tolist()
        sums, counts = torch.zeros(len(asked)), torch.zeros(len(asked))
        for indices, outputs in outputs_for(run, task, asked):
            if outputs.binary:
                own = 1 - entropies(outputs.logits, "bernoulli") / (len(task.labels) * math.log(2))
            else:
                logits, n_classes = answerable_first(outputs.logits)
                own = _of_classes(logits, n_classes)
            owners = torch.tensor(indices)[outputs.owners.cpu()]
            sums.index_add_(0, owners, own.float().cpu())
            counts.index_add_(0, owners, torch.ones(len(owners)))
    return (sums / counts.clamp(min=1)).tolist()


def _of_classes(logits: torch.Tensor, n_classes: torch.Tensor) -> torch.Tensor:
    """Return 1 - H / log n of each line; 0 where there is but one class, which is always sure."""
    most = n_classes.to(logits.device).float().log()
    return torch.where(most > 0, 1 - entropies(logits) / most.clamp(min=1e-6), 0.0)

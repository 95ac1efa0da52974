"""How a start does on a held-out task: a few gradient steps on some of its rows, then its evaluation items."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from typing import Any

import torch

from everlearn.kinds.meta.recipe import MetaEvaluation
from everlearn.learners.loader import row_batches
from everlearn.learners.meta.learner import MetaLearner
from everlearn.models.load import Model
from everlearn.models.objectives import item_losses, mean_loss, to_device
from everlearn.types import Rows, Task

INNER_LOOP = "inner loop"


def try_start(learner: MetaLearner, task: Task, start: str, evaluation: MetaEvaluation) -> list[dict[str, Any]]:
    """Return the scores after each number of steps on each draw of rows, as JSON: how the steps were taken
    (`best_rule`), the loss of the evaluation rows' answers (None: not finite), the score.
    """  # fmt: skip
    learner.prepare([task])
    rule = best_rule(learner, task, start, evaluation)
    lines = []
    for draw, n_steps in product(range(evaluation.n_draws), evaluation.steps):
        with tuned(learner, task, n_steps, evaluation.n_rows, draw, **rule) as model:
            loss = mean_target_loss(model, task, task.evaluation, learner.device, evaluation.batch_size)
            score = learner.score_as_is(model, task, batch_size=evaluation.batch_size)
        line = {"start": start, "steps": n_steps, "draw": draw, **rule, "loss": loss if math.isfinite(loss) else None}
        lines.append({**line, **asdict(score), "outcomes": list(score.outcomes)})
    return lines


def best_rule(learner: MetaLearner, task: Task, start: str, evaluation: MetaEvaluation) -> dict[str, Any]:
    """Return the optimizer and the rate after whose steps the loss on the validation rows is the lowest.

    Each start is tried with all of `evaluation.rates`; the learned one with its own inner loop as well. The loss is
    the mean over the draws of rows; of the evaluation rows where the task has none for validation.
    """
    rows = task.validation or task.evaluation
    rules = [{"optimizer": name, "rate": rate} for name, rates in evaluation.rates.items() for rate in rates]
    if start == "meta":
        rules.insert(0, {"optimizer": INNER_LOOP, "rate": learner.config.inner_lr})
    losses = []
    for rule in rules:
        total = 0.0
        for draw in range(evaluation.n_draws):
            with tuned(learner, task, evaluation.steps[-1], evaluation.n_rows, draw, **rule) as model:
                total += mean_target_loss(model, task, rows, learner.device, evaluation.batch_size)
        losses.append(total if math.isfinite(total) else math.inf)
    return rules[losses.index(min(losses))]


def mean_target_loss(model: Model, task: Task, rows: Rows, device: torch.device, batch_size: int) -> float:
    """Return the mean loss of the targets of a task's rows; of a model that steps blew up, NaN."""
    losses = []
    with torch.no_grad(), model.evaluating():
        for _, batch in row_batches(model.objective, rows, task, batch_size):
            losses.append(item_losses(model.objective.forward(model.network, to_device(batch, device))))
    return torch.cat(losses).mean().item()


@contextmanager
def tuned(
    learner: MetaLearner, task: Task, n_steps: int, n_rows: int | None, draw: int, optimizer: str, rate: float
) -> Iterator[Model]:
    """Let the model take steps on a task, an optimizer's or the inner loop's; after the block it is as before."""
    if optimizer == INNER_LOOP:
        with learner.adapted(task, n_steps, n_rows=n_rows, draw=draw) as model:
            yield model
        return
    batches, model = learner.support_of(task, n_steps, n_rows, draw), learner.model
    parameters = model.adapters.trainable()
    with model.adapters.using({name: p.detach().clone() for name, p in parameters.items()}):
        make = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
        stepper = make(list(parameters.values()), lr=rate, weight_decay=0.0)
        with learner.training(task):
            for batch in batches:
                mean_loss(model.objective.forward(model.network, batch)).backward()
                stepper.step()
                stepper.zero_grad()
        yield model

"""How a start does on a held-out task: a few gradient steps on some of its rows, then its evaluation items."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from everlearn.learners.gradients import to_device
from everlearn.learners.loader import row_batches
from everlearn.learners.meta.learner import MetaLearner
from everlearn.meta.recipe import MetaEvaluation
from everlearn.models.load import Model
from everlearn.models.objectives import item_losses, mean_loss
from everlearn.types import Task


def try_start(learner: MetaLearner, task: Task, start: str, evaluation: MetaEvaluation) -> list[dict[str, Any]]:
    """Return the score after each number of steps, with how the steps were taken, as JSON.

    The meta start takes its own inner loop's steps; the others those of the best of `evaluation.control_rates`.
    """
    learner.prepare([task])
    if start == "meta":
        rule = {"optimizer": "sgd", "rate": learner.config.inner_lr}
    else:
        rule = best_rule(learner, task, evaluation)
    lines = []
    for n_steps in evaluation.steps:
        if start == "meta":
            ready = learner.adapted(task, n_steps, n_rows=evaluation.n_rows)
        else:
            ready = tuned(learner, task, n_steps, evaluation.n_rows, **rule)
        with ready as model:
            score = learner.score_as_is(model, task, batch_size=evaluation.batch_size)
        lines.append({"start": start, "steps": n_steps, **rule, **asdict(score), "outcomes": list(score.outcomes)})
    return lines


def best_rule(learner: MetaLearner, task: Task, evaluation: MetaEvaluation) -> dict[str, Any]:
    """Return the optimizer and the rate after whose steps the loss on the evaluation items is the lowest."""
    found: list[tuple[float, dict[str, Any]]] = []
    for optimizer, rates in evaluation.control_rates.items():
        for rate in rates:
            rule = {"optimizer": optimizer, "rate": rate}
            with tuned(learner, task, evaluation.steps[-1], evaluation.n_rows, **rule) as model:
                loss = evaluation_loss(model, task, learner.device, evaluation.batch_size)
            found.append((loss if math.isfinite(loss) else math.inf, rule))
    return min(found, key=lambda one: one[0])[1]


def evaluation_loss(model: Model, task: Task, device: torch.device, batch_size: int) -> float:
    """Return the mean loss of the targets of a task's evaluation rows; of a model that steps blew up, NaN."""
    losses = []
    with torch.no_grad(), model.evaluating():
        for _, batch in row_batches(model.objective, task.evaluation, task, batch_size):
            losses.append(item_losses(model.objective.forward(model.network, to_device(batch, device))))
    return torch.cat(losses).mean().item()


@contextmanager
def tuned(
    learner: MetaLearner, task: Task, n_steps: int, n_rows: int | None, optimizer: str, rate: float
) -> Iterator[Model]:
    """Let the model take ordinary optimizer steps on a task, until the block ends; then it is as before."""
    batches, model = learner.support_of(task, n_steps, n_rows), learner.model
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

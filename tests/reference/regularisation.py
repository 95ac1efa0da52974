"""SI, RWalk and MAS written out: the penalty in the loss, one weight tensor and one row at a time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn import functional as F

from everlearn.seeds import generator_for
from everlearn.types import Task

Weights = dict[str, torch.Tensor]


def task_losses(weights: Weights, tasks: Sequence[Task], position: int, seed: int, batch_size: int) -> Iterator:
    """Yield (loss, number of rows) of each step of one epoch: a one-hidden-layer ReLU network, two columns a task."""
    w1, b1, w2, b2 = weights.values()
    task, columns = tasks[position], [2 * position, 2 * position + 1]
    order = torch.randperm(len(task.train), generator=generator_for(seed, position, task.name, 0, "order"))
    for rows in order.split(batch_size):
        logits = ((task.train.x[rows] @ w1.T + b1).clamp(min=0) @ w2.T + b2)[:, columns]
        yield F.cross_entropy(logits, task.train.y[rows]), len(rows)


def step(weights: Weights, loss: torch.Tensor, penalty: torch.Tensor, learning_rate: float) -> tuple[Weights, Weights]:
    """Take an SGD step on loss + penalty; return the gradient of the loss alone, and the movement."""
    gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()), retain_graph=True), strict=True))
    whole = torch.autograd.grad(loss + penalty, list(weights.values()))
    moved = {name: -learning_rate * g for name, g in zip(weights, whole, strict=True)}
    with torch.no_grad():
        for name, weight in weights.items():
            weight += moved[name]
    return gradients, moved


def zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(weight) for name, weight in weights.items()}


def copies(weights: Weights) -> Weights:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def pull(weights: Weights, precision: Weights, anchors: Weights, strength: float) -> torch.Tensor:
    return sum(0.5 * strength * (precision[n] * (w - anchors[n]) ** 2).sum() for n, w in weights.items())


def si(begin: Weights, tasks: Sequence[Task], strength: float, damping: float, **how) -> tuple[Weights, Weights]:
    """Return the weights and the importance after one epoch of each task. `how`: seed, batch_size, learning_rate."""
    rate = how.pop("learning_rate")
    weights = {name: tensor.clone().requires_grad_() for name, tensor in begin.items()}
    precision = zeros(weights)
    for position in range(len(tasks)):
        start, path = copies(weights), zeros(weights)
        for loss, _ in task_losses(weights, tasks, position, **how):
            gradients, moved = step(weights, loss, pull(weights, precision, start, strength), rate)
            path = {n: path[n] - gradients[n] * moved[n] for n in path}
        for n, weight in weights.items():
            precision[n] = precision[n] + path[n].clamp(min=0) / ((weight.detach() - start[n]) ** 2 + damping)
    return copies(weights), precision


def rwalk(
    begin: Weights, tasks: Sequence[Task], strength: float, alpha: float, interval: int, damping: float, **how
) -> tuple[Weights, Weights]:
    """Return the weights and the importance after one epoch of each task."""
    rate = how.pop("learning_rate")
    weights = {name: tensor.clone().requires_grad_() for name, tensor in begin.items()}
    precision, fisher, score = zeros(weights), {}, {}
    for position in range(len(tasks)):
        anchors, began, saved, of_task = copies(weights), copies(weights), zeros(weights), zeros(weights)
        losses = list(range(-(-len(tasks[position].train) // how["batch_size"])))
        for index, (loss, n) in enumerate(task_losses(weights, tasks, position, **how)):
            gradients, moved = step(weights, loss, pull(weights, precision, anchors, strength), rate)
            for name, g in gradients.items():
                fisher[name] = alpha * n * g**2 + (1 - alpha) * fisher.get(name, n * g**2)
                saved[name] = saved[name] - g * moved[name]
            if (index + 1) % interval == 0 or index == losses[-1]:
                for name, weight in weights.items():
                    distance = 0.5 * fisher[name] * (weight.detach() - began[name]) ** 2
                    of_task[name] = of_task[name] + saved[name].clamp(min=0) / (distance + damping)
                began, saved = copies(weights), zeros(weights)
        score = {n: (score[n] + s) / 2 if n in score else s for n, s in of_task.items()}
        tops = [max(t.max() for t in tensors.values()) for tensors in (fisher, score)]
        precision = {n: fisher[n] / tops[0] + score[n] / tops[1] for n in weights}
    return copies(weights), precision


def mas(parameters: Weights, rows: list, logits_of: Callable[[object], torch.Tensor]) -> Weights:
    """Sum over rows of |d ||logits||^2 / d w|; `logits_of(row)` holds those that the row may answer."""
    sums = zeros(parameters)
    for row in rows:
        gradients = torch.autograd.grad((logits_of(row) ** 2).sum(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                sums[name] += gradient.abs()
    return sums

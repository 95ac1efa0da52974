"""How much each of several experts counts in an answer of all: weights fitted on a few rows, without gradients."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize

from everlearn.memory.scores import row_losses
from everlearn.seeds import seed_for, seeded
from everlearn.types import Rows, Task

if TYPE_CHECKING:
    from everlearn.experts.slots import Slots
    from everlearn.way import Run

MOST_CALLS = 40  # of the loss, beside the candidates
REACH = 1.5  # weights lie within -REACH to REACH


def compose(run: "Run", slots: "Slots", task: Task, rows: Rows, similarities: Mapping[int, float]) -> dict[int, float]:
    """Return how much each expert counts for a task, fitted on a few of its rows, without those that don't count.

    Args:
        similarities: {expert: how near it is}; the slots' rank must be the sum of theirs.
    """
    with (
        slots.composed(*similarities) as weigh, run.model.evaluating(), torch.no_grad(), run.accelerator.autocast(),
        seeded(seed_for(run.seed, "compose", task.name)),
    ):  # fmt: skip

        def loss(weights: Sequence[float]) -> float:
            weigh(weights)
            return row_losses(run, task, rows, run.eval_batch_size).mean().item()

        weights = fit_weights(loss, list(similarities.values()))
    return {number: weight for number, weight in zip(similarities, weights, strict=True) if weight}


def arrow_helps(run: "Run", slots: "Slots", task: Task, rows: Rows, numbers: Sequence[int]) -> bool:
    """Tell whether experts that share the tokens (`Slots.arrow`) answer a few rows of a task better than the base."""
    losses = []
    with run.model.evaluating(), torch.no_grad(), run.accelerator.autocast():
        for answering in (slots.arrow(*numbers), slots.answering(None)):
            with answering, seeded(seed_for(run.seed, "compose", task.name)):
                losses.append(row_losses(run, task, rows, run.eval_batch_size).mean().item())
    return losses[0] < losses[1]


def fit_weights(
    loss: Callable[[Sequence[float]], float], similarities: Sequence[float], penalty: float = 0.05
) -> list[float]:
    """Return the weights of n experts at which loss(weights) + penalty * mean |weights| is lowest, as far as is found.

    Looked at are none of them, each by itself, all alike, their similarities scaled to sum 1, and what Nelder and
    Mead's search finds from the best of these; so the result is never worse on these rows than the best single one.

    Args:
        loss: mean loss of a few rows, nats. similarities: of each expert [n].

    Cost: n + 3 + `MOST_CALLS` calls of the loss.
    Source: LoraHub (Huang et al. 2023, arXiv 2307.13269), objective and bounds. Departs: Nelder-Mead (scipy) in place
        of nevergrad; the experts' matrices are summed, not A and B by themselves; single experts are among the
        candidates.
    """
    n = len(similarities)

    def cost(weights: Sequence[float]) -> float:
        return loss([float(weight) for weight in weights]) + penalty * float(np.abs(weights).mean())

    shares = np.clip(similarities, 0, None)
    starts = [np.zeros(n), *np.eye(n), np.full(n, 1 / n)]
    if shares.any():
        starts.append(shares / shares.sum())
    costs = [cost(start) for start in starts]
    best = int(np.argmin(costs))
    options = {"maxfev": MOST_CALLS, "xatol": 1e-2, "fatol": 1e-4, "initial_simplex": _simplex(starts[best])}
    found = minimize(cost, starts[best], method="Nelder-Mead", bounds=[(-REACH, REACH)] * n, options=options)
    weights = found.x if found.fun < costs[best] else starts[best]
    return [float(weight) for weight in weights]


def _simplex(start: np.ndarray) -> np.ndarray:
    """Return where the search begins [n + 1, n]: scipy's own steps from 0 are too small to be seen."""
    return np.vstack([start, start + 0.3 * np.eye(len(start))])

"""Was anything learned? A task before and after its training, on the same evaluation items."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from everlearn.evaluation.losses import CHANCE, holm, loss_p_value
from everlearn.memory.scores import row_losses
from everlearn.seeds import seed_for, seeded
from everlearn.types import Score, Task

if TYPE_CHECKING:
    from everlearn.way import Run

LOG_LIKELIHOOD = "token_log_likelihood"
# metrics that have no floor or no top
WITHOUT_FLOOR = (LOG_LIKELIHOOD, "negative_mae", "negative_mse", "reward_margin")
KNOWN = 0.9  # score from which on a task is known
FEW = 10  # items; with fewer an estimate has to do
LEAST_RISE = 0.01  # nats, of a likelihood; a smaller one may be sure, and is nothing all the same

LEARNED, ALREADY_KNOWN, NOTHING, WORSE = "learned", "known", "nothing", "worse"


def by_log_likelihood(task: Task) -> Task:
    """Return the task, scored by the log-likelihood of its answers."""
    return replace(task, metrics=(LOG_LIKELIHOOD,))


def answer_likelihood(run: "Run", task: Task) -> Score:
    """Return the log-likelihood of the right answers to a task's evaluation items, nats per token (or per target).

    Cost: a forward pass over the items; nothing of the model's state changes.
    """
    if task.kind in ("prompt", "text"):
        return run.score(by_log_likelihood(task))
    run.add_labels(task)
    with seeded(seed_for(run.seed, "score", task.name, "likelihood")), run.ready_for(task):
        outcomes = (-row_losses(run, task, task.evaluation, run.eval_batch_size)).tolist()
    mean = sum(outcomes) / len(outcomes)
    return Score(task.name, LOG_LIKELIHOOD, mean, None, None, len(outcomes), tuple(outcomes))


def is_known(score: Score) -> bool:
    """Return whether a score is so high that there is little left to learn; scores without a top tell nothing."""
    return score.metric not in WITHOUT_FLOOR and score.value >= KNOWN


def verdict_on(
    before: Score, after: Score, likelihood_before: Score, likelihood_after: Score, *, known: bool = False
) -> str:
    """Return what a task's training did for it: learned, known (it was, and still is), nothing, or worse.

    learned: the score rose beyond chance, or the likelihood of the right answers by 0.01 nats or more; one-sided
    paired tests, at a chance of 5% for both together. Of fewer than ten items an estimate that rose is enough, as is a
    score that rose to 0.9. worse: the score fell beyond chance, whatever the likelihood did.

    Args:
        before, after, likelihood_before, likelihood_after: on the same items in the same order.
        known: the task was learned before.
    Source: the tests, see `everlearn.evaluation.losses`.
    """
    pairs = [(before.outcomes, after.outcomes), (likelihood_before.outcomes, likelihood_after.outcomes)]
    if _any_rose([(after.outcomes, before.outcomes)], [0.0]):
        return WORSE
    if _any_rose(pairs, [0.0 if before.metric != LOG_LIKELIHOOD else LEAST_RISE, LEAST_RISE]) or (
        is_known(after) and after.value > before.value
    ):
        return LEARNED
    return ALREADY_KNOWN if known or is_known(before) else NOTHING


def _any_rose(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], margins: Sequence[float]) -> bool:
    """Return whether, in any of the pairs, the second outcomes are higher than the first by its margin, beyond chance.
    """  # fmt: skip
    if len(pairs[0][0]) < FEW:
        differences = (sum(second) - sum(first) for first, second in pairs)
        return any(d > len(pairs[0][0]) * m for d, m in zip(differences, margins, strict=True))
    p_values = [loss_p_value(second, first, margin) for (first, second), margin in zip(pairs, margins, strict=True)]
    return min(holm([1.0 if p is None else p for p in p_values], len(pairs))) <= CHANCE

"""The numbers that sum up a stream: what was learned, what was kept, what helped what. Pure functions on a matrix.

`scores[k, i]` is the score on task i after learning step k, higher is better, NaN where it was not measured. Columns
stand in the order in which tasks are first learned. `learned_at[i]` is the step that first taught task i; by default
step i. With repeated rounds there are more steps than tasks: R[i,i] is then the score right after the task was learned
FIRST, and "the earlier tasks" are those first learned before the last step, so in round two they are all tasks.
A score that a formula needs and that was not measured is an error: a mean over what happens to be there would mislead.
"""

from collections.abc import Sequence

import numpy as np

from everlearn.errors import ConfigError, StateError, describe

Array = np.ndarray


def average_accuracy(scores: Array, learned_at: Sequence[int] | None = None) -> float:
    """Return the mean score over all tasks after the last step: ACC = 1/T Σ_i R[T,i].

    Args:
        scores: [n_steps, n_tasks].
        learned_at: [n_tasks], the step that first taught each task.
    Raises:
        StateError: if a score of the last row is missing.
    Source: Lopez-Paz & Ranzato 2017, Gradient Episodic Memory, eq. 2.
    """
    scores, _ = _checked(scores, learned_at)
    return float(_needed(scores[-1], "average_accuracy", "the last step").mean())


def backward_transfer(scores: Array, learned_at: Sequence[int] | None = None) -> float:
    """Return how learning on changed the earlier tasks: BWT = 1/(T-1) Σ_{i<T} (R[T,i] − R[i,i]); below 0: a loss.

    Args:
        scores: [n_steps, n_tasks].
        learned_at: [n_tasks], the step that first taught each task.
    Returns:
        The mean change, or NaN if no task was learned before the last step.
    Raises:
        StateError: if a score of the diagonal or of the last row is missing.
    Source: Lopez-Paz & Ranzato 2017, Gradient Episodic Memory, eq. 3.
    """
    scores, first = _checked(scores, learned_at)
    earlier = earlier_tasks(scores, first)
    change = scores[-1, earlier] - scores[first[earlier], earlier]
    return _mean(_needed(change, "backward_transfer", "the diagonal or the last step"))


def forward_transfer(scores: Array, baseline: Array, learned_at: Sequence[int] | None = None) -> float:
    """Return how much earlier learning helped a task before its turn: FWT = 1/(T-1) Σ_{i>1} (R[i−1,i] − b[i]).

    Args:
        scores: [n_steps, n_tasks]; needs the tasks that are still to come.
        baseline: [n_tasks], the scores before any training.
        learned_at: [n_tasks], the step that first taught each task.
    Returns:
        The mean difference, or NaN if every task was learned in the first step.
    Raises:
        StateError: if tasks to come, or the baseline, were not scored.
    Source: Lopez-Paz & Ranzato 2017, Gradient Episodic Memory, eq. 4.
    Departs: b is the score of the given model before training, where the paper takes a random initialisation: a
        pretrained model knows something, and that is not transfer between the tasks.
    """
    scores, first = _checked(scores, learned_at)
    baseline = np.asarray(baseline, dtype=float)
    if baseline.shape != first.shape:
        way_out = f"Pass one score for each of the {len(first)} tasks"
        raise ConfigError(describe("forward_transfer", "baseline has a wrong shape", baseline.shape, way_out))
    later = np.flatnonzero(first > 0)
    gain = scores[first[later] - 1, later] - baseline[later]
    return _mean(_needed(gain, "forward_transfer", "a task to come, or the score before training"))


def forgetting(scores: Array, learned_at: Sequence[int] | None = None) -> float:
    """Return the mean drop from a task's best score to its last: F = 1/(T-1) Σ_{i<T} (max_{l<T} R[l,i] − R[T,i]).

    Args:
        scores: [n_steps, n_tasks].
        learned_at: [n_tasks], the step that first taught each task.
    Returns:
        The mean drop (negative if tasks still improve), or NaN if no task was learned before the last step.
    Raises:
        StateError: if a score of an earlier task is missing from the step that taught it to the last step.
    Source: Chaudhry et al. 2018, Riemannian Walk, the forgetting measure.
    Departs: l starts where the task was learned. The paper starts at step 1, which needs scores of tasks to come, and
        those are measured on request only; runs with and without them would not compare.
    """
    scores, first = _checked(scores, learned_at)
    drops = [scores[best_step(scores, first, i), i] - scores[-1, i] for i in earlier_tasks(scores, first)]
    return _mean(_needed(np.array(drops), "forgetting", "the last step"))


def learning_accuracy(scores: Array, learned_at: Sequence[int] | None = None) -> float:
    """Return the mean score of each task right after it was learned: LA = 1/T Σ_i R[i,i].

    Args:
        scores: [n_steps, n_tasks].
        learned_at: [n_tasks], the step that first taught each task.
    Raises:
        StateError: if a score of the diagonal is missing.
    Source: Riemer et al. 2019, Meta-Experience Replay, "learning accuracy".
    """
    scores, first = _checked(scores, learned_at)
    return float(_needed(_diagonal(scores, first), "learning_accuracy", "the diagonal").mean())


def plasticity(scores: Array, joint: Array, learned_at: Sequence[int] | None = None) -> float:
    """Return how well new tasks are learned, as a share of joint training: 1/T Σ_i R[i,i] / J[i].

    Args:
        scores: [n_steps, n_tasks].
        joint: [n_tasks], the scores of a model trained on all tasks at once; above 0.
        learned_at: [n_tasks], the step that first taught each task.
    Raises:
        StateError: if a score of the diagonal or of `joint` is missing, or a joint score is not above 0.
    Source: ours. It is the ratio form of intransigence, J[i] − R[i,i] (Chaudhry et al. 2018), normalised by joint
        training as in Kemker et al. 2018.
    """
    scores, first = _checked(scores, learned_at)
    return float(_ratio(_diagonal(scores, first), np.asarray(joint, dtype=float), "plasticity").mean())


def stability(scores: Array, learned_at: Sequence[int] | None = None) -> float:
    """Return which share of what was learned is still there at the end: 1/(T-1) Σ_{i<T} R[T,i] / R[i,i].

    Args:
        scores: [n_steps, n_tasks].
        learned_at: [n_tasks], the step that first taught each task.
    Returns:
        The mean share (1: all kept), or NaN if no task was learned before the last step.
    Raises:
        StateError: if a score is missing, or a score right after learning is not above 0.
    Source: ours, the ratio form of backward transfer; like it, it leaves out the task of the last step, which is 1.
    """
    scores, first = _checked(scores, learned_at)
    earlier = earlier_tasks(scores, first)
    return _mean(_ratio(scores[-1, earlier], scores[first[earlier], earlier], "stability"))


def success_rate(returns: Sequence[float], threshold: float = 1.0) -> float:
    """Return the share of episodes that reach the goal: 1/n Σ [return ≥ threshold].

    Args:
        returns: [n_episodes], the sum of rewards of each episode.
        threshold: the return from which on an episode counts as solved.
    Raises:
        ConfigError: if there is no episode, or a return is NaN.
    Source: the usual success rate of reinforcement learning, as in Continual World (Wołczyk et al. 2021).
    """
    values = np.asarray(returns, dtype=float)
    if values.size == 0 or np.isnan(values).any():
        raise ConfigError(describe("success_rate", "needs finished episodes", list(returns), "Pass their returns"))
    return float((values >= threshold).mean())


def average_over_seen(scores: Array, learned_at: Sequence[int] | None = None) -> Array:
    """Return the curve of mean scores over the tasks learned so far, [n_steps]; NaN where one of them was not scored.

    Source: the curve of average incremental accuracy, Rebuffi et al. 2017, iCaRL.
    """
    scores, first = _checked(scores, learned_at)
    curve = np.full(len(scores), np.nan)
    for step, row in enumerate(scores):
        seen = row[first <= step]
        if seen.size:
            curve[step] = seen.mean()
    return curve


def earlier_tasks(scores: Array, learned_at: Array) -> Array:
    """Return the columns of the tasks first learned before the last step."""
    return np.flatnonzero(np.asarray(learned_at) < len(scores) - 1)


def best_step(scores: Array, learned_at: Array, task: int) -> int:
    """Return the step before the last at which a task scored best, from the step that taught it on.

    Raises:
        StateError: if one of these scores is missing.
    """
    start = int(learned_at[task])
    past = _needed(scores[start:-1, task], "forgetting", "a step between learning and the end")
    return start + int(past.argmax())


def _checked(scores: Array, learned_at: Sequence[int] | None) -> tuple[Array, Array]:
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ConfigError(describe("scores", "is no matrix", scores.shape, "Pass [n_steps, n_tasks], not empty"))
    n_steps, n_tasks = scores.shape
    first = np.arange(n_tasks) if learned_at is None else np.asarray(learned_at, dtype=int)
    if first.shape != (n_tasks,) or first.min() < 0 or first.max() >= n_steps:
        way_out = f"Pass for each of {n_tasks} tasks a step from 0 to {n_steps - 1}"
        raise ConfigError(describe("learned_at", "does not fit the matrix", first.tolist(), way_out))
    return scores, first


def _diagonal(scores: Array, first: Array) -> Array:
    return scores[first, np.arange(len(first))]


def _needed(values: Array, metric: str, where: str) -> Array:
    if np.isnan(values).any():
        missing = np.flatnonzero(np.isnan(values)).tolist()
        way_out = f"Score every task that {metric} needs, or leave this metric out"
        raise StateError(describe(metric, f"the matrix is incomplete: {where} was not scored", missing, way_out))
    return values


def _ratio(above: Array, below: Array, metric: str) -> Array:
    if above.shape != below.shape:
        raise ConfigError(describe(metric, "scores differ in shape", below.shape, f"Pass shape {above.shape}"))
    _needed(above + below, metric, "a task")
    if (below <= 0).any():
        raise StateError(describe(metric, "a ratio needs scores above 0", below.tolist(), "Use backward_transfer"))
    return above / below


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")

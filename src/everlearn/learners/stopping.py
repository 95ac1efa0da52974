"""When a task is learned enough: the epoch after which its validation rows are answered best, and its weights.

Epochs are judged by the score on the validation rows. While that is 0 it tells none apart (no answer is wholly right
yet, say), and the mean loss of the rows takes its place; any score above 0 is better.
"""

from typing import TYPE_CHECKING

import torch

from everlearn.memory.scores import row_losses
from everlearn.seeds import seed_for, seeded
from everlearn.shards import laid_out
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.learners.sft import Progress
    from everlearn.way import Run

Weights = dict[str, torch.Tensor]


def judge_epoch(run: "Run", task: Task, progress: "Progress", best: Weights, delta: float) -> None:
    """Score the validation rows after an epoch; if it is better than the best by `delta`, put its weights into `best`.

    `progress` notes the best epoch, and how many have followed it.
    """
    score, loss = run.score(task, rows="validation").value, None
    if score == 0:
        with seeded(seed_for(run.seed, "score", task.name, "loss")), run.ready_for(task):
            loss = row_losses(run, task, task.validation, run.eval_batch_size).mean().item()
    if _is_better(score, loss, progress, delta):
        progress.best_epoch, progress.best_score, progress.best_loss = progress.epoch, score, loss
        progress.bad_epochs = 0
        keep_weights(run, best)
    else:
        progress.bad_epochs += 1


def go_back(run: "Run", task: Task, progress: "Progress", best: Weights, n_epochs: int) -> None:
    """Give the model the weights of the best epoch if it isn't the last, and tell the user. Buffers are weights too.

    What strategies have learned on the way (averages, paths, masks) is not taken back.

    Args:
        n_epochs: that were planned.
    """
    if not best or progress.best_epoch == progress.epoch:
        return
    bring_back(run, best)
    stopped = progress.epoch < n_epochs
    when = f"stopped after {progress.epoch} of {n_epochs} epochs" if stopped else f"after all {n_epochs} epochs"
    why = "" if progress.best_loss is None else ", judged by loss, for the validation score was 0"
    run.note(f"Task {task.name!r}: {when}, went back to the weights of epoch {progress.best_epoch}{why}.")


def keep_weights(run: "Run", best: Weights) -> None:
    """Put what a task's training can change into `best`: the trainable weights and the buffers."""
    trainable = run.model.adapters.trainable()
    tensors = run.model.adapters.tensors().items()
    moving = {name: tensor for name, tensor in tensors if name in trainable or name.startswith("buffer:")}
    best.update({name: tensor.detach().clone() for name, tensor in moving.items()})


def bring_back(run: "Run", best: Weights) -> None:
    """Give the model the weights that `keep_weights` kept."""
    present = run.model.adapters.tensors()
    with torch.no_grad():
        for name, tensor in best.items():
            present[name].copy_(laid_out(tensor, present[name]))


def _is_better(score: float, loss: float | None, progress: "Progress", delta: float) -> bool:
    if progress.best_score is None:
        return True
    if loss is not None and progress.best_loss is not None:
        return loss < progress.best_loss - delta
    return score > progress.best_score + delta

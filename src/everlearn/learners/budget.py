"""How long a task is learned: a number of epochs, or as many as its rows need (`learner.epochs: auto`).

auto: before the first epoch and after each, rows that were held out are answered. Training goes on while more of them
are right, or their loss falls; then the best weights come back, and the last epochs are over all rows, the rate falling
to 0. Where no more of them are right than the commonest answer makes, the rows can't be told from each other, and have
to be learned by heart: it then goes on while more of the training rows are right, too. Where no epoch answers them
better than before, the weights stay as they were.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from everlearn.learners.loader import BatchPlan, EncodedMixture
from everlearn.learners.stopping import Weights, bring_back, go_back, judge_epoch, keep_weights
from everlearn.models.objectives import item_losses, to_device
from everlearn.seeds import generator_for, seed_for, seeded
from everlearn.types import Examples, Group, Mixture, Outputs, Task

if TYPE_CHECKING:
    from everlearn.learners.sft import Progress, SupervisedLearner
    from everlearn.way import Run

AUTO = "auto"
EPOCH_STEPS = 8  # optimizer steps in an epoch, at least, where there are twice as many rows
LEAST_STEPS = 30  # in a task
PATIENT_STEPS = 40  # without a gain before training ends, at least
PLANNED_STEPS = 200  # where their number must be known beforehand
HELD_SHARE, LEAST_HELD, MOST_HELD = 0.1, 8, 200  # of the rows, held out
LEAST_TRAINED = 50  # training rows looked at, where those held out don't tell
LEAST_ROWS = 5 * LEAST_HELD  # with fewer none are held out
LOSS_DELTA = 0.01  # nats; a loss that falls by less doesn't fall. Of squared errors a share of the best
BEYOND_CHANCE = 0.1  # share of rows that must be right beside those that have the commonest answer


@dataclass(frozen=True)
class FixedEpochs:
    """As many epochs as were asked for, or fewer where early stopping acts."""

    learner: "SupervisedLearner"
    run: "Run"
    task: Task
    most: int

    def begin(self, progress: "Progress", best: Weights) -> None:
        """Do nothing: epochs are compared with each other."""

    def held(self, progress: "Progress") -> frozenset[int]:
        """Return the rows of the first group that the present epoch leaves out."""
        return frozenset()

    def goes_on(self, progress: "Progress") -> bool:
        """Tell whether there is another epoch."""
        return progress.epoch < self.most and not progress.stopped

    def rate_share(self, progress: "Progress", n_steps: int) -> float:
        """Return at which share of its rate the next of the epoch's `n_steps` is taken."""
        return 1.0

    def judge(self, progress: "Progress", best: Weights) -> None:
        """Judge an epoch by the validation score, and note where that has stopped rising; where that saves epochs."""
        learner = self.learner
        if learner.can_stop_early(self.most) and self.task.validation:
            judge_epoch(self.run, self.task, progress, best, learner.delta)
            progress.stopped = progress.epoch >= learner.min_epochs and progress.bad_epochs >= learner.patience

    def finish(self, progress: "Progress", best: Weights) -> None:
        """Leave the model with the weights of the best epoch."""
        go_back(self.run, self.task, progress, best, self.most)


@dataclass(frozen=True)
class Looked:
    """What became of some rows: share of them whose targets are all the likeliest, mean loss in nats, and the share
    that always giving the commonest answer would get right."""  # fmt: skip

    right: float
    loss: float
    chance: float


@dataclass(frozen=True)
class AutoEpochs:
    """As many epochs as the rows need.

    judged: (rows, their numbers) that epochs are judged by: validation rows where there are any, else some held out of
        the first group; of few rows, or those of a data loader of the user's, such as are trained on.
    trained: numbers of rows of the first group that are trained on, looked at beside those judged.
    out: numbers of the rows held out until the last epochs.
    n_steps: optimizer steps in an epoch.
    """

    learner: "SupervisedLearner"
    run: "Run"
    task: Task
    encoded: EncodedMixture
    judged: tuple[EncodedMixture, list[int]]
    trained: list[int]
    out: frozenset[int]
    n_steps: int

    @classmethod
    def of(
        cls, learner: "SupervisedLearner", run: "Run", task: Task, encoded: EncodedMixture, plan: BatchPlan
    ) -> "AutoEpochs":
        """Choose the rows to judge by."""
        n_held = n_held_out(learner, task, encoded)
        generator = generator_for(run.seed, run.position, task.name, "held")
        order = torch.randperm(encoded.sizes[0], generator=generator).tolist()
        if task.validation:
            own = EncodedMixture(Mixture((Group((Examples(task, task.validation),)),)), run.model.objective)
            judged = (own, list(range(own.sizes[0])))
        else:
            judged = (encoded, order[: n_held or MOST_HELD])
        out = frozenset(order[:n_held])
        trained = order[n_held : n_held + max(n_held, LEAST_TRAINED)] if n_held else []
        return cls(learner, run, task, encoded, judged, trained, out, n_epoch_steps(encoded, plan, n_held))

    @property
    def most(self) -> int:
        """The largest number of epochs."""
        return self.learner.max_epochs

    def begin(self, progress: "Progress", best: Weights) -> None:
        """Judge the weights as they are before the first epoch: of a task that is known, none may be better."""
        self._compare(progress, best)

    def held(self, progress: "Progress") -> frozenset[int]:
        """Return the rows of the first group that the present epoch leaves out."""
        return self.out if progress.last_from is None else frozenset()

    def goes_on(self, progress: "Progress") -> bool:
        """Tell whether there is another epoch."""
        return not progress.stopped

    def rate_share(self, progress: "Progress", n_steps: int) -> float:
        """Return at which share of its rate the next of the epoch's `n_steps` is taken."""
        if progress.last_from is None:
            return 1.0
        done = (progress.epoch - progress.last_from) * n_steps + progress.done
        return max(0.0, 1 - done / (progress.n_last * n_steps))

    def judge(self, progress: "Progress", best: Weights) -> None:
        """Judge an epoch, and decide how it goes on."""
        if progress.last_from is not None:
            progress.stopped = progress.epoch >= progress.last_from + progress.n_last
            return
        self._compare(progress, best)
        out_of_time = self._is_out_of_time(progress)
        if out_of_time or progress.epoch >= self.most - self._n_last(progress) or self._is_enough(progress):
            self._end(progress, best, out_of_time)

    def _compare(self, progress: "Progress", best: Weights) -> None:
        """Keep the present weights if they answer the rows better than those kept before."""
        found = self._look(*self.judged)
        score, loss = (found.right, 0.0), found.loss
        if self.trained and found.right <= found.chance + BEYOND_CHANCE:  # by heart
            known = self._look(self.encoded, self.trained)
            score, loss = (0.0, known.right), known.loss if known.right > 0.5 else found.loss
        if self._is_better(score, loss, progress):
            progress.best_epoch, progress.best_score, progress.best_known = progress.epoch, *score
            progress.best_loss, progress.bad_epochs = loss, 0
            keep_weights(self.run, best)
        else:
            progress.bad_epochs += 1

    def finish(self, progress: "Progress", best: Weights) -> None:
        """Tell how it went."""
        how = f"{progress.epoch} epochs, {progress.index} steps"
        if progress.last_from is not None:
            how += f"; after epoch {progress.best_epoch} the last {progress.n_last} over all rows"
        elif progress.best_epoch == 0:
            how += "; none answers better than before, so the weights are those of before"
        elif progress.best_epoch < progress.epoch:
            how += f"; the weights are those of epoch {progress.best_epoch}"
        if progress.epoch >= self.most and progress.best_epoch == self.most - progress.n_last:
            how += "; the loss was still falling (learner.max_epochs)"
        self.run.inform(f"{self.task.name}: {how}.")

    def _look(self, encoded: EncodedMixture, numbers: list[int]) -> Looked:
        """Let the model answer rows of the first group, in evaluation mode; nothing of its state changes."""
        run, size = self.run, self.run.eval_batch_size
        found: list[tuple[bool, float, str]] = []
        with (
            seeded(seed_for(run.seed, "judge", self.task.name)), run.ready_for(self.task), run.model.evaluating(),
            torch.no_grad(), run.accelerator.autocast(),
        ):  # fmt: skip
            for low in range(run.processes.rank * size, len(numbers), run.processes.size * size):
                batch = encoded.__getitems__([(0, row) for row in numbers[low : low + size]])
                batch = to_device(batch, run.accelerator.device)
                found += _of_rows(run.model.objective.forward(run.model.network, batch))
        found = [one for part in run.processes.gather(found) for one in part]
        n = max(1, len(found))
        commonest = max(Counter(answer for *_, answer in found).values(), default=0)
        return Looked(sum(right for right, *_ in found) / n, math.fsum(loss for _, loss, _ in found) / n, commonest / n)

    def _is_enough(self, progress: "Progress") -> bool:
        if progress.index < LEAST_STEPS or progress.epoch < self.learner.min_epochs:
            return False
        patience = max(self.learner.patience, math.ceil(PATIENT_STEPS / self.n_steps))
        return progress.bad_epochs >= patience or progress.best_loss < self._delta(progress)

    def _is_better(self, score: tuple[float, float], loss: float, progress: "Progress") -> bool:
        if progress.best_score is None:
            return True
        best = (progress.best_score, progress.best_known)
        return score > best or (score == best and loss < progress.best_loss - self._delta(progress))

    def _delta(self, progress: "Progress") -> float:
        """Return by how much the loss must fall."""
        return LOSS_DELTA * progress.best_loss if self.task.is_regression else LOSS_DELTA

    def _is_out_of_time(self, progress: "Progress") -> bool:
        """Tell whether another epoch, beside the last ones, would take longer than there is time for."""
        an_epoch_s = progress.elapsed_s / progress.epoch
        needed_s = progress.elapsed_s + an_epoch_s * (1 + self._n_last(progress))
        late = needed_s > 60 * self.learner.max_minutes
        return self.run.processes.first_decides(late)

    def _n_last(self, progress: "Progress") -> int:
        """Return how many epochs over all rows are to follow."""
        if not self.out or progress.best_epoch == 0:
            return 0
        if progress.best_known > 0.5:  # by heart: rows that were held out take about as long as the others did
            return max(2, progress.best_epoch // 2)
        return min(3, max(2, progress.best_epoch // 3))

    def _end(self, progress: "Progress", best: Weights, out_of_time: bool) -> None:
        """Begin the last epochs over all rows, if there are any and there is time, from the best weights."""
        if out_of_time and progress.bad_epochs == 0:
            what = f"{self.learner.max_minutes:g} minutes end before the loss stops falling"
            self.run.note(f"Task {self.task.name!r}: {what}. Give it more with --set learner.max_minutes=60.")
        bring_back(self.run, best)
        best.clear()
        progress.n_last = self._n_last(progress)
        if progress.n_last and self._has_time_for(progress):
            progress.last_from = progress.epoch
        else:
            progress.stopped, progress.n_last = True, 0

    def _has_time_for(self, progress: "Progress") -> bool:
        needed_s = progress.elapsed_s * (1 + progress.n_last / progress.epoch)
        late = needed_s > 1.2 * 60 * self.learner.max_minutes
        return not self.run.processes.first_decides(late)


def course_of(
    learner: "SupervisedLearner", run: "Run", task: Task, encoded: EncodedMixture, plan: BatchPlan
) -> FixedEpochs | AutoEpochs:
    """Return how long a task is learned.

    Where the number of steps must be known beforehand, auto is a number: a schedule that isn't constant, a warm-up, or
    a strategy that plans by it.
    """
    if learner.epochs != AUTO:
        return FixedEpochs(learner, run, task, learner.epochs)
    if learner.schedule == "constant" and not learner.warmup and not any(s.plans_steps for s in run.strategies):
        return AutoEpochs.of(learner, run, task, encoded, plan)
    n_epochs = math.ceil(PLANNED_STEPS / max(1, n_epoch_steps(encoded, plan)))
    return FixedEpochs(learner, run, task, min(learner.max_epochs, max(3, n_epochs)))


def n_held_out(learner: "SupervisedLearner", task: Task, encoded: EncodedMixture) -> int:
    """Return how many rows of the first group are held out to judge epochs by."""
    n_rows = encoded.sizes[0]
    if task.validation or not learner.early_stopping or encoded.loader is not None or n_rows < LEAST_ROWS:
        return 0
    return min(MOST_HELD, max(LEAST_HELD, round(HELD_SHARE * n_rows)))


def fitting(plan: BatchPlan, learner: "SupervisedLearner", task: Task, encoded: EncodedMixture) -> BatchPlan:
    """Return the plan with smaller batches where rows are few: `EPOCH_STEPS` an epoch, as far as there are rows."""
    if learner.epochs != AUTO or encoded.loader is not None:
        return plan
    most = max(1, (encoded.sizes[0] - n_held_out(learner, task, encoded)) // EPOCH_STEPS)
    if plan.tokens is not None or plan.size * plan.accumulation <= most:
        return plan
    size = min(plan.size, most)
    return replace(plan, size=size, accumulation=max(1, most // size))


def n_epoch_steps(encoded: EncodedMixture, plan: BatchPlan, n_held: int = 0) -> int:
    """Return the number of optimizer steps in an epoch; of a data loader's the first."""
    if encoded.loader is not None:
        return -(-encoded.loader.n_batches(0) // plan.accumulation)
    return -(-(encoded.sizes[0] - n_held) // encoded.rows_of_step(plan)) if encoded.sizes[0] else 0


def _of_rows(outputs: Outputs) -> list[tuple[bool, float, str]]:
    """Return of each row that has targets whether they are all the likeliest, their mean loss, and the targets."""
    owners, losses = outputs.owners.tolist(), item_losses(outputs).tolist()
    if outputs.binary:
        hits = ((outputs.logits > 0) == (outputs.targets > 0)).all(1).tolist()
    elif outputs.targets.is_floating_point():
        hits = [False] * len(owners)
    else:
        hits = (outputs.logits.argmax(-1) == outputs.targets).tolist()
    rows: dict[int, list[tuple[bool, float, Any]]] = {}
    for owner, *of_item in zip(owners, hits, losses, outputs.targets.tolist(), strict=True):
        rows.setdefault(owner, []).append(of_item)
    return [
        (all(hit for hit, *_ in items), sum(loss for _, loss, _ in items) / len(items), str([t for *_, t in items]))
        for items in rows.values()
    ]

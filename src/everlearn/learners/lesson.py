"""One task as another library's trainer learns it: its steps as strategies see them, and the rows mixed into them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import datasets
import torch

from everlearn.errors import ConfigError, TrainingError, describe
from everlearn.learners.loader import EncodedMixture, endless_rows
from everlearn.learners.weighing import row_weights
from everlearn.models.collated import Inputs, rollout_rows
from everlearn.models.objectives import Batch, item_losses
from everlearn.models.positions import at_wanted
from everlearn.strategy import Strategy, overriding
from everlearn.types import Mixture, Step, Task
from everlearn.way import Run

KEPT_ROLLOUTS = 1000  # the newest answers of a model that strategies measure on after a task


@dataclass(frozen=True)
class Fetched:
    """Rows that a data loader fetched, not yet a batch."""

    rows: list[dict[str, Any]]


@dataclass
class Lesson:
    """A task in training.

    Attributes:
        kind: of the trainer: rows, preferences or rollouts.
        takes_outputs: whether the trainer's own forward pass gives the logits; else penalties take one of their own.
        batch_of: what the trainer's loss is computed on -> batch.
        n_own: the task's own rows that were trained on so far.
        rollouts: {tokens of prompt and answer: row}, the newest last.
    """

    run: Run
    task: Task
    mixture: EncodedMixture
    kind: str
    takes_outputs: bool
    batch_of: Callable[[Inputs], Batch]
    n_own: int = 0
    rollouts: dict[tuple[int, ...], dict[str, list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        run = self.run
        self.step = Step(run, self.task, run.model.adapters.trainable(), by_row=self.mixture.by_row)
        self._penalty, self._edit_grads, self._after_step = (
            overriding(run.strategies, hook) for hook in ("penalty", "edit_grads", "after_step")
        )
        distils = any(strategy.wants_past_logits for strategy in run.strategies)
        self._past = tuple(run.past_tasks()) if distils else ()
        self._mixed_in = self.mixture.mixed_in()
        self._old: dict[int, Iterator[tuple[int, int]]] = {}
        self._begin_draws()
        self._addresses: list[list[tuple[int, int]]] = []  # of each micro-batch of the step that is to come
        self._weights: list[torch.Tensor | None] = []
        self._sums: dict[str, torch.Tensor] = {}  # of penalties since they were told
        self._n_steps_summed = 0
        self.takes_outputs = self.takes_outputs and self.adds_to_loss

    @classmethod
    def of(cls, run: Run, task: Task, mixture: Mixture, kind: str, takes_outputs: bool, batch_of: Any) -> "Lesson":
        """Return the lesson for what strategies made of the task's rows."""
        return cls(run, task, EncodedMixture(mixture, run.model.objective, collate=list), kind, takes_outputs, batch_of)

    @property
    def mixes(self) -> bool:
        """Whether rows of earlier tasks are mixed in."""
        return bool(self._mixed_in)

    @property
    def _weighs_rows(self) -> bool:
        return self.kind == "rows" and any(each.group in self.step.by_row for each in self._mixed_in)

    @property
    def adds_to_loss(self) -> bool:
        """Whether anything may be added to the trainer's loss."""
        return bool(self._penalty) or self._weighs_rows

    @property
    def reads_batches(self) -> bool:
        """Whether batches are looked at."""
        return self.adds_to_loss or self.kind == "rollouts"

    def n_items(self, batch: Batch) -> int:
        """Return how many targets a batch holds."""
        return self.run.model.objective.n_items(batch)

    def begin_step(self, index: int, n_steps: int, learning_rate: float) -> None:
        """Say which optimizer step comes next."""
        self.step.index, self.step.n_steps, self.step.learning_rate = index, n_steps, learning_rate
        self._addresses, self._weights = [], []
        self._n_steps_summed += 1

    def with_old_rows(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Return the data loader's batches, those of fetched rows put together with the rows mixed into them."""
        return map(self._mix, batches) if self.mixes and self.kind != "rollouts" else batches

    def _mix(self, fetched: Fetched) -> Inputs:
        own = [(0, self.n_own + i) for i in range(len(fetched.rows))]
        done, self.n_own = self.n_own, self.n_own + len(own)
        drawn = [next(self._old[each.group]) for each in self._mixed_in for _ in range(each.n_due(done, self.n_own))]
        self._addresses.append(own + self.mixture.in_batch_order(drawn))
        return self.run.model.objective.collator(fetched.rows + (self.mixture.__getitems__(drawn) if drawn else []))

    def with_old_prompts(self) -> Any:
        """Return the task's prompts with those of earlier tasks, `ratio` for each of its own, to be answered anew.

        Raises:
            ConfigError: if these have other columns.
        """
        own = self.task.train
        draws = (islice(self._draws(each.group), each.n_due(0, len(own))) for each in self._mixed_in)
        old = self.mixture.__getitems__([address for drawn in draws for address in drawn])
        others = [sorted(row) for row in old if set(row) != set(own[0])]
        if others:
            way_out = f"Give all tasks the same columns: {', '.join(sorted(own[0]))}"
            raise ConfigError(describe("train_dataset", "old rows have other columns", others[0], way_out))
        if not isinstance(own, datasets.Dataset):
            return own + old
        return datasets.concatenate_datasets([own, datasets.Dataset.from_list(old, features=own.features)])

    def weigh(self, batches: list[Inputs]) -> None:
        """Find how much each row of the step counts in its loss."""
        if self._weighs_rows:
            self._weights = row_weights(self.run, self.step, [self.batch_of(one) for one in batches], self._addresses)

    def added_to_loss(self, batch: Batch, trainer_outputs: Any, share: float, later: float) -> torch.Tensor | None:
        """Return what is to be added to a micro-batch's loss, as the trainer scales it; None for nothing.

        Args:
            trainer_outputs: of the trainer's forward pass, where `takes_outputs`.
            share: what a mean over the micro-batch's targets is multiplied by. later: what the trainer still will.

        Raises:
            TrainingError: if it isn't finite.
        """
        step, objective = self.step, self.run.model.objective
        step.batch = batch
        step.rows = self._addresses.pop(0) if self._addresses else [(0, i) for i in range(len(batch["input_ids"]))]
        if trainer_outputs is None:
            step.outputs = objective.forward(self.run.model.network, batch, self._past)
        else:
            wanted = objective.wanted(batch)
            step.outputs = objective.outputs(at_wanted(trainer_outputs.logits, wanted, None), wanted, batch, self._past)
        weights = self._weights.pop(0) if self._weights else None
        owners = step.outputs.owners
        step.weights = None if weights is None else weights.to(owners.device)[owners]
        added = {}
        if step.weights is not None:
            added["row_weights"] = ((step.weights - 1) * item_losses(step.outputs)).mean()
        for strategy in self._penalty:
            penalty = strategy.penalty(step)
            if penalty is not None:
                added[strategy.name] = penalty
        if not added:
            return None
        for name, value in added.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float() * share * later
        total = sum(added.values()) * share
        if not total.isfinite():
            where = f"task {self.task.name!r}, step {step.index + 1} of {step.n_steps}"
            values = {name: value.item() for name, value in added.items()}
            way_out = "Lower the learning rate or the strategy's strength, and resume from a checkpoint"
            raise TrainingError(describe(where, "what is added to the loss is not finite", values, way_out))
        return total

    def edit_grads(self) -> None:
        """Let strategies change the step's gradients."""
        for strategy in self._edit_grads:
            strategy.edit_grads(self.step)

    def after_step(self) -> None:
        """Let strategies follow the step that was taken."""
        for strategy in self._after_step:
            strategy.after_step(self.step)

    def told(self) -> dict[str, float]:
        """Return the mean over the steps since it was asked last of each penalty, as it stands in the logged loss."""
        n, self._n_steps_summed = max(1, self._n_steps_summed), 0
        sums, self._sums = self._sums, {}
        return {f"loss/{name}": float(total) / n for name, total in sums.items()}

    def keep_rollouts(self, batch: Batch) -> None:
        """Keep the model's newest answers, each once."""
        for row in rollout_rows(batch) if self.kind == "rollouts" else ():
            key = tuple(row["input_ids"])
            self.rollouts.pop(key, None)
            self.rollouts[key] = row
        for key in list(islice(self.rollouts, max(0, len(self.rollouts) - KEPT_ROLLOUTS))):
            del self.rollouts[key]

    def task_for(self, strategy: Strategy) -> Task:
        """Return the task whose rows a strategy consolidates: of rollouts the answers, for replay the prompts."""
        if self.kind != "rollouts" or overriding([strategy], "train_data"):
            return self.task
        return replace(self.task, train=list(self.rollouts.values()))

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs to go on in mid-task."""
        return {"task": self.task.name, "n_own": self.n_own, "rollouts": list(self.rollouts.values())}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.n_own = state["n_own"]
        self.rollouts = {tuple(row["input_ids"]): row for row in state["rollouts"]}
        self._begin_draws()

    def _begin_draws(self) -> None:
        """Begin the endless draws of old rows behind those that were drawn already."""
        for each in self._mixed_in:
            self._old[each.group] = islice(self._draws(each.group), each.n_due(0, self.n_own), None)

    def _draws(self, group: int) -> Iterator[tuple[int, int]]:
        seed_parts = (self.run.seed, self.run.position, self.task.name, 0)
        return endless_rows(group, self.mixture.sizes[group], seed_parts)

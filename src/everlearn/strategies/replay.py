"""Experience replay: some rows of the past are trained on again beside the new ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.memory.disk import LARGE_BYTES
from everlearn.memory.keeping import Budget, Classes, Kept, Sampler, keep_best, new_rows
from everlearn.memory.ranking import BY_CLASS, rank_rows
from everlearn.memory.rows import Memory, join_rows, n_rows, parts, pick, pick_to_disk, row_bytes, rows_of
from everlearn.memory.scores import row_losses
from everlearn.memory.selection import draw_shares, weighted_excess
from everlearn.models.objectives import item_losses
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.state import FILE
from everlearn.strategy import NEEDS_TARGETS, Strategy, learned
from everlearn.streams.sampling import groups_of, select_rows
from everlearn.types import Group, Mixture, Rows, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

WEIGH_BY = ("row", "token")
ASK_THE_MODEL = ("uncertainty", "loss", "herding", "gradient")
SELECTIONS = ("reservoir", "ring", "balanced", *ASK_THE_MODEL)


@register("strategy", "replay")
@dataclass
class Replay(Strategy):
    """Keep a memory of training rows and mix them into every batch: one forward pass over old and new together.

    Args:
        capacity: rows kept over all tasks; 500 where none of the three budgets is given.
        fraction: instead, this share of each task's rows (at least one).
        capacity_bytes: instead, bytes over all tasks: of a row's JSON text in UTF-8, or of its tensors.
        selection: what is kept. reservoir: a uniform sample of all rows seen. ring: the newest of each task and class.
            balanced: equally many of each task and class, drawn. uncertainty: what the model is least certain of.
            loss: what it does worst (or best) on. herding: what comes closest to the mean embedding of each task and
            class, greedily. gradient: what pulls the weights apart (GSS-greedy). All but reservoir share the budget
            equally over tasks (ring, balanced and herding over each task's classes too), and cut earlier tasks down to
            their share by letting go what ranks last.
        uncertainty: measured by entropy, or by margin between the two likeliest classes; a mean over a row's targets.
        loss: which losses are kept, highest or lowest.
        ratio: old rows in a batch for each new row; 1.0 makes a batch half old, half new.
        weigh_by: row, so that in a step each old row counts in the loss as much as a new one does on average, whatever
            their lengths; or token, so that each old target counts as much as a new one, and half of the rows may be a
            hundredth of the loss. The same where rows have one target each.
        weight: how much an old row (or token) counts in the loss for each 1 of the new ones'; the mean weight stays 1.
        weigh_by_forgetting: draw half of the old rows evenly, the other half from tasks whose loss rose since they were
            learned: share_k = 1/2 n_k / sum n + 1/2 n_k r_k / sum n r, r_k the rise of the mean loss on its n_k rows.
        on_disk: keep the rows as memory-mapped files (Arrow, safetensors) that checkpoints name instead of copying;
            null: from 64 MiB on, where the run has a folder.
        batch_size: rows at once while rows are measured; what is measured doesn't depend on it.

    A budget that is lowered holds before the next task begins: rows over it are let go, those that rank last, or drawn
    uniformly from a reservoir. Where a reservoir's is raised, later rows are taken at the rate at which earlier ones
    are held, until it is full; an empty one begins anew.

    Cost: (1 + ratio) times plain training from the second task on; keeps the rows themselves. After a task,
    uncertainty, loss and herding take a forward pass over its rows, gradient a forward and backward pass a row;
    weigh_by_forgetting a forward pass over the memory before a task, and over the task's kept rows after it.

    Source: Ratcliff 1990; reservoir, ring: Chaudhry et al. 2019, arXiv 1902.10486; balanced: Prabhu et al. 2020
    (GDumb); herding: Rebuffi et al. 2017, arXiv 1611.07725, algorithm 4; gradient: Aljundi et al. 2019,
    arXiv 1903.08671, algorithm 2. Departs: the memory is filled at the end of a task, not at every step (for the
    reservoir the distribution is the same); balanced fills the rarest class first, where GDumb drops rows of the
    largest; gradient runs within each task, on gradients by the trainable weights, sketched where they are long.
    Reproduces: split MNIST, one head of ten, 5,000 rows: Avalanche's reference run 0.92 | ours 0.956 (3 seeds;
    METHODS.md).
    """

    capacity: int | None = None
    fraction: float | None = None
    capacity_bytes: int | None = None
    selection: str = "reservoir"
    uncertainty: str = "entropy"
    loss: str = "highest"
    ratio: float = 1.0
    weigh_by: str = "row"
    weight: float = 1.0
    weigh_by_forgetting: bool = False
    on_disk: bool | None = None
    batch_size: int = 32

    memory_: Memory = learned(dict)  # each task's rows, best first (those of a reservoir in no order)
    n_seen_: int = learned(int)
    by_bytes_: dict = learned(dict)  # seed and limit of a reservoir by bytes
    losses_: dict = learned(dict)  # task -> loss of each kept row when the task was learned
    shares_: dict = learned(dict)  # task -> its share of the rows replayed now
    n_rows_: dict = learned(dict)  # task -> how many rows of it came
    budget_: dict = learned(dict)  # what the memory was last brought within

    on_shards: ClassVar[bool] = True
    neutral: ClassVar[dict] = {"ratio": 0.0}

    def __post_init__(self) -> None:
        self._budget = Budget.checked("replay", self.capacity, self.fraction, self.capacity_bytes)
        check_choice("replay.selection", self.selection, SELECTIONS)
        check_choice("replay.uncertainty", self.uncertainty, ("entropy", "margin"))
        check_choice("replay.loss", self.loss, ("highest", "lowest"))
        if not isinstance(self.on_disk, bool | None):
            raise ConfigError(describe("replay.on_disk", "is unknown", self.on_disk, "Allowed: true, false, null"))
        check_number("replay.ratio", self.ratio, low=0)
        check_choice("replay.weigh_by", self.weigh_by, WEIGH_BY)
        check_number("replay.weight", self.weight, low=0)
        check_number("replay.batch_size", self.batch_size, low=1)
        self._groups = range(0)  # numbers of the mixture's groups that hold what is replayed

    def check_model(self, traits: Sequence[str]) -> None:
        super().check_model(traits)
        if "sharded" in traits and (self.selection in ASK_THE_MODEL or self.weigh_by_forgetting):
            way_out = "Write reservoir, ring or balanced, and weigh_by_forgetting: false"
            what = "rows are weighed by whole weights, of which fsdp leaves each process a part"
            raise ConfigError(describe("replay.selection", what, self.selection, way_out))
        if {"preferences", "rollouts"} & set(traits) and self.weight != 1:
            raise ConfigError(describe("replay.weight", NEEDS_TARGETS, self.weight, "Leave it at 1; choose the ratio"))

    def begin_task(self, run: "Run", task: Task) -> None:
        if self.on_disk and run.memory is None:
            way_out = "Give the run a folder, or leave on_disk out"
            raise ConfigError(describe("replay.on_disk", "the run has no folder", True, way_out))
        if self.selection == "uncertainty" and task.is_regression:
            way_out = "Choose another selection, such as loss"
            raise ConfigError(describe("replay.selection", "real targets have no classes", self.selection, way_out))
        self._bound(run, task)
        self.shares_ = self._measure_shares(run) if self.weigh_by_forgetting and self.ratio > 0 else {}

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        kept = parts(self.memory_, run.tasks, run.memory) if self.ratio > 0 else ()
        by_row = self.weigh_by == "row"
        added = [Group(kept, self.ratio, by_row)] if kept else []
        if kept and self.shares_:
            added = [Group((part,), self.ratio * self.shares_[part.task.name], by_row) for part in kept]
        self._groups = range(len(mixture.groups), len(mixture.groups) + len(added))
        return Mixture((*mixture.groups, *added)) if added else mixture

    def penalty(self, step: Step) -> torch.Tensor | None:
        if self.weight == 1 or not self._groups:
            return None
        losses = item_losses(step.outputs)
        losses = losses if step.weights is None else step.weights * losses
        return weighted_excess(losses, step.items_of(self._groups), self.weight, self.ratio)

    def end_task(self, run: "Run", task: Task) -> None:
        generator = generator_for(run.seed, "replay", run.position, task.name)
        rows = {name: rows_of(stored, run.memory) for name, stored in self.memory_.items()}
        n_kept = len(rows.get(task.name, ()))
        rows[task.name] = self._candidates(rows[task.name], task.train) if n_kept else task.train
        if self.selection == "reservoir":
            sampler = Sampler(self._budget, self.n_seen_, self.by_bytes_)
            kept = sampler.keep(rows, task.name, len(rows[task.name]) - n_kept, generator)
        else:
            kept = self._keep_best(run, task, rows, n_kept, generator)
        kept = {name: indices for name, indices in kept.items() if indices}
        self.memory_ = self._store(run, rows, kept)
        self.n_seen_ += len(task.train)
        self.n_rows_[task.name] = self.n_rows_.get(task.name, 0) + len(task.train)
        self._follow_losses(run, task, kept)

    def state_bytes(self) -> int:
        return super().state_bytes() + sum(stored["n_bytes"] for stored in self.memory_.values() if FILE in stored)

    def _bound(self, run: "Run", task: Task) -> None:
        """Let go of rows that are too many, where the budget isn't the one of before."""
        budget = {"capacity": self._budget.rows, "fraction": self.fraction, "capacity_bytes": self.capacity_bytes}
        if self.budget_ != budget and self.memory_:
            generator = generator_for(run.seed, "replay", "bound", run.position, task.name)
            rows = {name: rows_of(stored, run.memory) for name, stored in self.memory_.items()}
            if self.selection == "reservoir":
                kept = Sampler(self._budget, self.n_seen_, self.by_bytes_).bound(rows, self.n_rows_, generator)
            else:
                kept = self._best_within(run, rows)
            kept = {name: indices for name, indices in kept.items() if indices}
            self.memory_ = self._store(run, rows, kept)
            self.losses_ = {name: own[kept[name]] for name, own in self.losses_.items() if name in kept}
        self.budget_ = budget
        if not self.memory_:  # one that is empty begins anew
            self.n_seen_, self.by_bytes_, self.n_rows_ = 0, {}, {}

    def _best_within(self, run: "Run", rows: dict[str, Rows]) -> Kept:
        """Return the rows within the budget, those first that ranked best when they were kept."""
        classes, costs = self._classes(run, rows), {name: self._budget.costs(own) for name, own in rows.items()}
        ranked = {name: list(range(len(own))) for name, own in rows.items()}
        if self.fraction is None:
            return keep_best(ranked, classes, costs, self._limit())
        kept = {}
        for name, order in ranked.items():
            most = self._budget.of_task(self.n_rows_[name]) if name in self.n_rows_ else len(order)
            kept |= keep_best({name: order}, classes, costs, most)
        return kept

    def _classes(self, run: "Run", rows: dict[str, Rows]) -> Classes:
        """Return the class of each row, where the selection shares its budget by class."""
        by_class = self.selection in BY_CLASS
        return {name: groups_of(run.tasks[name], own) if by_class else None for name, own in rows.items()}

    def _limit(self) -> int:
        return self._budget.rows if self.capacity_bytes is None else self.capacity_bytes

    def _candidates(self, stored: Rows, rows: Rows) -> Rows:
        """Return what a task that comes again can keep; rows that it brings once more count once, if not sampled."""
        sampled = self.selection == "reservoir" and self.capacity_bytes is None
        return join_rows(stored, rows if sampled else select_rows(rows, new_rows(stored, rows)))

    def _keep_best(
        self, run: "Run", task: Task, rows: dict[str, Rows], n_kept: int, generator: torch.Generator
    ) -> Kept:
        """Return the best-ranked rows of each task within the budget, best first; the memory is in that order."""
        classes = self._classes(run, rows)
        costs = {name: self._budget.costs(own) for name, own in rows.items()}
        present = {name: list(range(len(own))) for name, own in rows.items()}
        limit, shared = self._limit(), present
        if self.fraction is not None:
            # a task that comes again with few rows doesn't lose what it has
            limit, shared = max(self._budget.of_task(len(task.train)), n_kept), {task.name: present[task.name]}
        own_costs = costs[task.name]
        share = sum(own_costs[i] for i in keep_best(shared, classes, costs, limit)[task.name])
        ranked = rank_rows(
            {"uncertainty": self.uncertainty, "loss": f"{self.loss}_loss"}.get(self.selection, self.selection),
            run,
            task,
            rows[task.name],
            classes=classes[task.name],
            n_kept=n_kept,
            room=share // min(own_costs, default=1),
            batch_size=self.batch_size,
            generator=generator,
        )
        return {**present, **keep_best({**shared, task.name: ranked}, classes, costs, limit)}

    def _store(self, run: "Run", rows: dict[str, Rows], kept: dict[str, list[int]]) -> Memory:
        on_disk = self.on_disk
        if on_disk is None and run.memory is not None:
            on_disk = sum(sum(row_bytes(rows[name], indices)) for name, indices in kept.items()) >= LARGE_BYTES
        if not on_disk:
            return {name: pick(rows[name], indices) for name, indices in kept.items()}
        memory = {}
        for name, indices in kept.items():
            stored = self.memory_.get(name, {})
            unchanged = FILE in stored and indices == list(range(stored["n_rows"]))
            memory[name] = stored if unchanged else pick_to_disk(rows[name], indices, run.memory)
        return memory

    def _follow_losses(self, run: "Run", task: Task, kept: Kept) -> None:
        """Keep each row's loss at the time when its task was learned, or first measured, while the row is kept."""
        known = {name: losses for name, losses in self.losses_.items() if name in kept and name != task.name}
        self.losses_ = {}
        for name, stored in self.memory_.items() if self.weigh_by_forgetting else ():
            if name in known:
                self.losses_[name] = known[name][kept[name]]
            else:
                rows = rows_of(stored, run.memory)
                self.losses_[name] = row_losses(run, run.tasks[name], rows, self.batch_size)

    def _measure_shares(self, run: "Run") -> dict[str, float]:
        rises = {}
        for name, stored in self.memory_.items():
            if name in self.losses_:
                now = row_losses(run, run.tasks[name], rows_of(stored, run.memory), self.batch_size)
                rises[name] = float((now - self.losses_[name]).mean())
        sizes = [n_rows(stored) for stored in self.memory_.values()]
        shares = draw_shares(sizes, [rises.get(name, 0.0) for name in self.memory_]) if sizes else []
        return dict(zip(self.memory_, shares, strict=True))

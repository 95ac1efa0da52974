"""Dark experience: rows of the past together with the logits that they got when they were stored."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_choice, check_number
from everlearn.functional.distill import mean_squares
from everlearn.functional.reservoir import draw_within, kept_by_reservoir
from everlearn.memory.answers import AnswerTable, cut_answers, join_answers, record_answers
from everlearn.memory.rows import Memory, join_rows, n_rows, parts, pick, rows_of
from everlearn.models.objectives import answerable_first, losses_at
from everlearn.seeds import generator_for
from everlearn.strategy import NEEDS_TARGETS, Strategy, learned
from everlearn.streams.sampling import select_rows
from everlearn.types import Group, Mixture, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_REASON = "all earlier data is trained on, so there is nothing left to replay"


@dataclass
class DarkReplay(Strategy):
    """A reservoir of rows with their logits, mixed into every batch; the methods say what is made of them.

    Each stored row's targets count in the loss with alpha times the mean squared difference of logits, and their
    cross-entropy, which is part of the loop's mean loss, is taken out again. Rows weigh alike, or targets do, see
    `Group.by_row`.
    """

    capacity: int = 500
    alpha: float = 0.5
    ratio: float = 1.0
    weigh_by: str = "row"
    top_k: int = 64
    batch_size: int = 32

    memory_: Memory = learned(dict)
    answers_: dict = learned(dict)  # task name -> the answers to its rows in the memory
    n_seen_: int = learned(int)

    unsuited: ClassVar[dict[str, str]] = dict.fromkeys(("preferences", "rollouts"), NEEDS_TARGETS)
    neutral: ClassVar[dict] = {"ratio": 0.0}
    conflicts: ClassVar[dict[str, str]] = {"joint": _REASON, "cumulative": _REASON}

    def __post_init__(self) -> None:
        check_number(f"{self.name}.capacity", self.capacity, low=0)
        check_number(f"{self.name}.alpha", self.alpha, low=0)
        check_number(f"{self.name}.ratio", self.ratio, low=0)
        check_choice(f"{self.name}.weigh_by", self.weigh_by, ("row", "token"))
        check_number(f"{self.name}.top_k", self.top_k, low=1)
        check_number(f"{self.name}.batch_size", self.batch_size, low=1)
        self._group = 0  # number of the memory's group in the mixture; 0 where nothing is replayed
        self._table: AnswerTable | None = None

    def begin_task(self, run: "Run", task: Task) -> None:
        sizes = {name: n_rows(stored) for name, stored in self.memory_.items()}
        if sum(sizes.values()) > self.capacity:
            generator = generator_for(run.seed, self.name, "bound", run.position, task.name)
            kept = draw_within(sizes, self.capacity, generator)
            self.memory_ = {name: pick(rows_of(self.memory_[name]), indices) for name, indices in kept.items()}
            self.answers_ = {name: AnswerTable(self.answers_[name]).pick(indices) for name, indices in kept.items()}
        if run.model.kind == "causal":
            self.answers_ = {name: cut_answers(own, self.top_k) for name, own in self.answers_.items()}
        if not self.memory_:
            self.n_seen_ = 0  # a memory that is empty begins anew

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        kept = parts(self.memory_, run.tasks) if self.ratio > 0 else ()
        self._group = len(mixture.groups) if kept else 0
        if not kept:
            return mixture
        self._table = AnswerTable(join_answers([self.answers_[part.task.name] for part in kept]))
        return Mixture((*mixture.groups, Group(kept, self.ratio, self.weigh_by == "row")))

    def penalty(self, step: Step) -> torch.Tensor | None:
        if not self._group:
            return None
        stored = step.items_of({self._group})
        rows = [row for group, row in step.rows if group == self._group]
        logits = step.outputs.logits[stored]
        if step.run.model.kind != "causal":
            logits, _ = answerable_first(logits)
        before, now, known = self._table.compare(rows, logits)
        distances = self.alpha * step.total(mean_squares(now, before, known), stored)
        return (distances - step.total(losses_at(step.outputs, stored), stored)) / len(stored)

    def end_task(self, run: "Run", task: Task) -> None:
        generator = generator_for(run.seed, self.name, run.position, task.name)
        sizes = {name: n_rows(stored) for name, stored in self.memory_.items()}
        n_old = sizes.get(task.name, 0)
        kept = kept_by_reservoir(sizes, task.name, len(task.train), self.n_seen_, self.capacity, generator)
        new = [i - n_old for i in kept.get(task.name, ()) if i >= n_old]
        answers = {
            name: [AnswerTable(self.answers_[name]).pick([i for i in indices if i < sizes[name]])]
            for name, indices in kept.items()
            if name in sizes
        }
        answers.setdefault(task.name, []).extend(self._record(run, task, new))
        rows = {name: rows_of(stored) for name, stored in self.memory_.items()}
        rows[task.name] = join_rows(rows[task.name], task.train) if n_old else task.train
        self.memory_ = {name: pick(rows[name], indices) for name, indices in kept.items()}
        self.answers_ = {name: join_answers(answers[name]) for name in kept}
        self.n_seen_ += len(task.train)

    def _record(self, run: "Run", task: Task, indices: list[int]) -> list[dict[str, torch.Tensor]]:
        causal = run.model.kind == "causal"
        return record_answers(
            run,
            task,
            select_rows(task.train, indices),
            score=lambda outputs: [outputs.logits if causal else answerable(outputs.logits)],
            top_k=self.top_k if causal else None,
            batch_size=self.batch_size,
        )


def answerable(logits: torch.Tensor) -> torch.Tensor:
    """Return the logits of the columns that the rows of one task may answer."""
    in_order, counts = answerable_first(logits)
    return in_order[:, : int(counts.max()) if len(counts) else None]

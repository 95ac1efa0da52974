"""Learning without forgetting: on the new task's inputs, keep answering as the model did before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError, check_number, describe
from everlearn.functional.distill import answer_divergences, answer_scores, distillation_loss
from everlearn.learners.teacher import as_teacher
from everlearn.memory.answers import AnswerTable, record_answers
from everlearn.registry import register
from everlearn.strategy import Strategy, learned
from everlearn.types import Family, Mixture, Outputs, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run


@register("strategy", "lwf")
@dataclass
class LwF(Strategy):
    """Distil the model of before the task into the present one, on the new data: strength * T^2 * KL(before || now).

    The teacher is the same backbone with the trainable weights of before: no second model. For language models it is
    compared at the positions of the completion; for classifiers, earlier tasks' heads are (or the earlier columns of a
    shared head). The KL is a mean over all targets of the batch, those of rows that other methods mix in too.

    Args:
        strength: weight of the distillation beside the task's loss.
        temperature: T; higher compares the less likely answers too. Numbers are compared as they are, by half their
            squared distance; several labels each by itself.
        cache_top_k: ask the teacher once, before the task, and keep its log-probabilities at T of so many classes, with
            those of all others as one outcome more; no teacher is kept. A head with no more classes is kept whole.
            Null: ask it at every step, on rows that other methods mix in as well.
        batch_size: rows at once while answers are recorded for the cache; the result doesn't depend on it.

    Cost: one forward pass more per batch from the second task on; keeps one copy of the trainable weights. With a
    cache, one forward pass over the task's rows before it; keeps 6 * cache_top_k + 2 bytes a target token meanwhile.

    Source: Li & Hoiem 2016, arXiv 1606.09282, eq. 2 and 3. Departs: KL in place of cross-entropy (the same gradient),
    T^2 as in Hinton et al. 2015, no warm-up of the new head.
    Reproduces: split MNIST, a head for each task: van de Ven & Tolias 2019 (arXiv 1904.07734) 0.996 | ours 0.997; one
    head of ten: 0.239 | 0.311 (3 seeds; METHODS.md).
    """

    strength: float = 1.0
    temperature: float = 2.0
    cache_top_k: int | None = None
    batch_size: int = 32

    teacher_: dict = learned(dict)  # trainable weights before the task
    cache_: list = learned(list)  # for each head that is asked, the teacher's answers to the task's own rows

    protects: ClassVar[bool] = True
    wants_past_logits = True
    neutral: ClassVar[dict] = {"strength": 0.0}

    def __post_init__(self) -> None:
        check_number("lwf.strength", self.strength, low=0)
        check_number("lwf.temperature", self.temperature, above=0)
        check_number("lwf.batch_size", self.batch_size, low=1)
        if self.cache_top_k is not None:
            check_number("lwf.cache_top_k", self.cache_top_k, low=1)
        self._tables: list[AnswerTable] = []

    def check_model(self, traits: Sequence[str]) -> None:
        super().check_model(traits)
        if {"online", "trainer", "rollouts"} & set(traits) and self.cache_top_k is not None:
            way_out = "Leave it out: the teacher then answers each row as it comes"
            raise ConfigError(describe("lwf.cache_top_k", "needs the rows beforehand", self.cache_top_k, way_out))

    def begin_task(self, run: "Run", task: Task) -> None:
        self.teacher_, self.cache_ = {}, []
        if not run.past_tasks() or self.strength == 0:
            return
        if self.cache_top_k is None:
            self.teacher_ = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
            return
        self.cache_ = record_answers(
            run,
            task,
            task.train,
            score=self._log_probabilities,
            top_k=self.cache_top_k,
            batch_size=self.batch_size,
            past=run.past_tasks(),
        )

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        self._tables = [AnswerTable(answers) for answers in self.cache_]
        return mixture

    def penalty(self, step: Step) -> torch.Tensor | None:
        if self._tables:
            return self._from_cache(step)
        if not self.teacher_:
            return None
        model = step.run.model
        with as_teacher(step.run, self.teacher_):
            before = model.objective.forward(model.network, step.batch, step.run.past_tasks()).past
        pairs = zip(before, step.outputs.past, strict=True)
        return reduce(torch.add, (distillation_loss(b, n, *self._options(step.outputs)) for b, n in pairs))

    def end_task(self, run: "Run", task: Task) -> None:
        self.teacher_, self.cache_, self._tables = {}, [], []

    def _log_probabilities(self, outputs: Outputs) -> list[torch.Tensor]:
        return [answer_scores(logits, self.temperature, outputs.family) for logits in outputs.past]

    def _options(self, outputs: Outputs) -> tuple[float, float, Family]:
        return self.temperature, self.strength, outputs.family

    def _from_cache(self, step: Step) -> torch.Tensor | None:
        """Return the distillation on the task's own rows, as a mean over all items of the batch."""
        cached = [group == 0 and row < self._tables[0].n_rows for group, row in step.rows]
        rows = [row for (_, row), own in zip(step.rows, cached, strict=True) if own]
        owners = step.outputs.owners
        own = torch.tensor(cached).to(owners.device)[owners]
        total = 0.0
        for table, log_p in zip(self._tables, self._log_probabilities(step.outputs), strict=True):
            before, now, _ = table.compare(rows, log_p[own])
            if step.outputs.family == "categorical":
                before = F.log_softmax(before, dim=-1)  # float16 left them a little off 1
            total = total + answer_divergences(before, now, step.outputs.family).sum()
        return self.strength * self.temperature**2 * total / len(owners)

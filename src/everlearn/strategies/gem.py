"""GEM: never step against the gradient of any earlier task's memory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from everlearn.errors import check_choice, check_number
from everlearn.functional.projection import project_against_all, project_step
from everlearn.learners.grouped import grouped_gradients
from everlearn.learners.loader import EncodedMixture
from everlearn.memory.rows import Memory, add_by_reservoir, add_sample, n_rows, parts, pick, rows_of
from everlearn.memory.selection import even_shares
from everlearn.models.objectives import item_losses
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import NEEDS_TARGETS, Strategy, learned
from everlearn.types import Group, Mixture, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run


@register("strategy", "gem")
@dataclass
class GEM(Strategy):
    """Project each step to the nearest one that, to first order, raises no earlier task's memory loss.

    x = argmin |x - g|^2 with x.m_t >= 0 for the memory's gradient m_t of each earlier task t; see
    `everlearn.functional.projection.project_against_all`. g is the gradient, then the step itself, turned round.

    Args:
        capacity: rows kept over all tasks, an equal share for each, drawn uniformly. Where it is lowered, rows over it
            are let go before the next task begins.
        batch_size: rows of each earlier task's memory that a step's gradients are taken over, each target alike; tasks
            don't weigh against each other, for each has a constraint of its own.
        margin: least share of each memory's direction in a projected gradient, in the gradient's own lengths: a step
            along it lowers the memories' losses beyond not raising them. 0 is the plain problem.
        protect: update (the gradient, and once more the step that the optimizer really took: Adam's moments, momentum
            and weight decay lead it astray) or gradient (as in the paper, right for SGD without either).

    Cost: a forward and backward pass over `batch_size` rows of each earlier task a step (one pass for all of them where
    linear layers hold all that is trained, LoRA say), and one float32 copy of the gradient for each earlier task; with
    protect: update one of the weights, and the projection twice.

    Source: Lopez-Paz & Ranzato 2017, arXiv 1706.08840, eq. 11 and algorithm 1.
    Departs: protect: update; all gradients are normalised first, so that the projection and `margin` don't depend on
    their scale; the margin bounds the dual's v from below, as in the authors' code (their text adds it to v); a step
    sees a sample of the memory; rows are drawn from the whole task in place of its last ones.
    Reproduces: permuted MNIST, 10 tasks, average accuracy: Avalanche's reference run 0.80 | ours 0.892 (3 seeds;
    METHODS.md).
    """

    capacity: int = 500
    batch_size: int = 16
    margin: float = 0.0
    protect: str = "update"

    memory_: Memory = learned(dict)
    n_seen_: dict[str, int] = learned(dict)  # rows of each task so far

    unsuited: ClassVar[dict[str, str]] = dict.fromkeys(("preferences", "rollouts"), NEEDS_TARGETS)
    protects: ClassVar[bool] = True
    neutral: ClassVar[dict] = {"capacity": 0}

    def __post_init__(self) -> None:
        check_number("gem.capacity", self.capacity, low=0)
        check_number("gem.batch_size", self.batch_size, low=1)
        check_number("gem.margin", self.margin, low=0, high=1)
        check_choice("gem.protect", self.protect, ("update", "gradient"))
        self._encoded: tuple[int, EncodedMixture] | None = None
        # until the step is taken: what moves, where it was, the memories' gradients
        self._departure: tuple[list[nn.Parameter], list[torch.Tensor], torch.Tensor] | None = None

    def begin_task(self, run: "Run", task: Task) -> None:
        generator = generator_for(run.seed, "gem", "bound", run.position, task.name)
        shares = even_shares(self.capacity, len(self.memory_)) if self.memory_ else []
        for (name, stored), share in zip(list(self.memory_.items()), shares, strict=True):
            if n_rows(stored) > share:
                self.memory_ |= add_sample({}, name, rows_of(stored), share, generator)
        if self.capacity == 0:
            self.memory_, self.n_seen_ = {}, {}

    def edit_grads(self, step: Step) -> None:
        self._departure = None
        encoded = self._encode(step.run)
        moving = {name: p for name, p in step.params.items() if p.grad is not None}
        if not encoded.sizes or not moving:
            return
        generator = generator_for(step.run.seed, "gem", step.run.position, step.index)
        drawn = [
            (group, row)
            for group, size in enumerate(encoded.sizes)
            for row in torch.randperm(size, generator=generator)[: self.batch_size].tolist()
        ]
        mine = drawn[step.run.processes.rank :: step.run.processes.size]
        batch = encoded.__getitems__(mine) if mine else {}
        groups = [group for group, _ in mine]
        references = grouped_gradients(step.run, moving, batch, groups, len(encoded.sizes), item_losses)
        step.run.processes.all_reduce([references])
        weights = list(moving.values())
        project_against_all([p.grad for p in weights], references, self.margin)
        if self.protect == "update":
            self._departure = (weights, [p.detach().to(torch.float32, copy=True) for p in weights], references)

    def after_step(self, step: Step) -> None:
        if self._departure is not None:
            weights, before, references = self._departure
            project_step(weights, before, lambda turned: project_against_all(turned, references))
            self._departure = None

    def end_task(self, run: "Run", task: Task) -> None:
        if self.capacity == 0:
            return
        generator = generator_for(run.seed, "gem", run.position, task.name)
        n_seen = self.n_seen_.get(task.name, 0)
        if n_seen:  # learned again: its rows of then and of now weigh alike
            own = {task.name: self.memory_[task.name]}
            share = max(n_rows(own[task.name]), self.capacity // len(self.memory_))
            memory = {**self.memory_, **add_by_reservoir(own, task.name, task.train, n_seen, share, generator)}
        else:
            memory = add_sample(self.memory_, task.name, task.train, self.capacity, generator)
        self.n_seen_[task.name] = n_seen + len(task.train)
        shares = even_shares(self.capacity, len(memory))
        self.memory_ = {
            name: pick(rows_of(stored), range(min(share, len(rows_of(stored)))))
            for (name, stored), share in zip(memory.items(), shares, strict=True)
        }

    def _encode(self, run: "Run") -> EncodedMixture:
        """Encode the memory, a group for each task, once a task."""
        if self._encoded is None or self._encoded[0] != run.position:
            mixture = Mixture(tuple(Group((part,)) for part in parts(self.memory_, run.tasks)))
            self._encoded = (run.position, EncodedMixture(mixture, run.model.objective))
        return self._encoded[1]

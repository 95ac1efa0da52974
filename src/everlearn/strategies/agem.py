"""A-GEM: never step against the average gradient of a memory of the past."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from everlearn.errors import check_choice, check_number
from everlearn.functional.projection import project_against, project_step
from everlearn.learners.gradients import reference_gradients
from everlearn.learners.loader import EncodedMixture
from everlearn.memory.rows import Memory, add_by_reservoir, bound_reservoir, parts
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import NEEDS_TARGETS, Strategy, learned
from everlearn.types import Group, Mixture, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run


@register("strategy", "agem")
@dataclass
class AGEM(Strategy):
    """Project each step so that, to first order, it doesn't raise the loss on a sample of the memory.

    Args:
        capacity: rows kept over all tasks, a uniform sample of all rows seen (reservoir). Where it is lowered, rows
            over it are let go before the next task begins, drawn uniformly; where it is raised, later rows are taken at
            the rate at which earlier ones are held, until it is full.
        batch_size: rows of the memory that a step's reference gradient is taken over, of the mean loss over all their
            targets: long answers count more in it.
        protect: update (the gradient, and once more the step that the optimizer really took: Adam's moments, momentum
            and weight decay lead it astray) or gradient (as in the paper, right for SGD without either).

    Cost: one forward and backward pass over `batch_size` rows more per step from the second task on; with protect:
    update a copy of the weights.

    Source: Chaudhry et al. 2019, arXiv 1812.00420, eq. 10 and 11. Departs: protect: update; the memory is one
    reservoir.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    capacity: int = 500
    batch_size: int = 16
    protect: str = "update"

    memory_: Memory = learned(dict)
    n_seen_: int = learned(int)

    unsuited: ClassVar[dict[str, str]] = dict.fromkeys(("preferences", "rollouts"), NEEDS_TARGETS)
    protects: ClassVar[bool] = True
    neutral: ClassVar[dict] = {"capacity": 0}

    def __post_init__(self) -> None:
        check_number("agem.capacity", self.capacity, low=0)
        check_number("agem.batch_size", self.batch_size, low=1)
        check_choice("agem.protect", self.protect, ("update", "gradient"))
        self._encoded: tuple[int, EncodedMixture] | None = None
        # until the step is taken: what moves, where it was, the memory's gradient
        self._departure: tuple[list[nn.Parameter], list[torch.Tensor], list[torch.Tensor]] | None = None

    def begin_task(self, run: "Run", task: Task) -> None:
        generator = generator_for(run.seed, "agem", "bound", run.position, task.name)
        self.memory_, self.n_seen_ = bound_reservoir(self.memory_, self.n_seen_, self.capacity, generator)

    def edit_grads(self, step: Step) -> None:
        self._departure = None
        kept = parts(self.memory_, step.run.tasks)
        if not kept:
            return
        encoded = self._encode(step.run, kept)
        generator = generator_for(step.run.seed, "agem", step.run.position, step.index)
        rows = torch.randperm(len(encoded), generator=generator)[: self.batch_size].tolist()
        mine = [(0, row) for row in rows[step.run.processes.rank :: step.run.processes.size]]
        batches = [encoded.__getitems__(mine)] if mine else []
        parameters = list(step.params.values())
        reference = reference_gradients(step.run, parameters, batches)
        moving = zip(parameters, reference, strict=True)
        pairs = [(p, r) for p, r in moving if p.grad is not None and r is not None]
        if not pairs:
            return
        weights, reference = [p for p, _ in pairs], [r for _, r in pairs]
        project_against([p.grad for p in weights], reference)
        if self.protect == "update":
            self._departure = (weights, [p.detach().to(torch.float32, copy=True) for p in weights], reference)

    def after_step(self, step: Step) -> None:
        if self._departure is not None:
            weights, before, reference = self._departure
            project_step(weights, before, lambda turned: project_against(turned, reference))
            self._departure = None

    def end_task(self, run: "Run", task: Task) -> None:
        generator = generator_for(run.seed, "agem", run.position, task.name)
        self.memory_ = add_by_reservoir(self.memory_, task.name, task.train, self.n_seen_, self.capacity, generator)
        self.n_seen_ += len(task.train)

    def _encode(self, run: "Run", kept: tuple) -> EncodedMixture:
        """Encode the memory once a task."""
        if self._encoded is None or self._encoded[0] != run.position:
            self._encoded = (run.position, EncodedMixture(Mixture((Group(kept),)), run.model.objective))
        return self._encoded[1]

"""Elastic weight consolidation: weights that earlier tasks rely on are held where they were."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_choice, check_number
from everlearn.functional.fisher import KINDS, sum_of_squared_gradients
from everlearn.learners.gradients import to_device
from everlearn.learners.loader import row_batches
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import Strategy, learned
from everlearn.streams.sampling import select_rows
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.runs import Run


def add_quadratic_gradients(
    parameters: list[torch.Tensor], precision: list[torch.Tensor], pull: list[torch.Tensor], strength: float
) -> None:
    """Add to each `.grad` that of 1/2 * strength * sum_k F_k (w - w_k)^2, given F = sum F_k and pull = sum F_k w_k.

    A sum of quadratics is one quadratic: its gradient is strength * (F w - pull), however many tasks there were.

    Args:
        parameters: tensors that have a gradient; precision, pull: tensors of the same shapes.
    """
    change = torch._foreach_mul(precision, parameters)
    torch._foreach_sub_(change, pull)
    torch._foreach_add_([p.grad for p in parameters], change, alpha=strength)


@register("strategy", "ewc")
@dataclass
class EWC(Strategy):
    """Penalise moving weights by 1/2 * strength * sum_i F_i (w_i - w*_i)^2, F the diagonal of the Fisher information.

    Args:
        strength: lambda of the paper, with its factor 1/2.
        fisher: exact (over all classes), sampled (one draw from the model) or empirical (the data's own labels).
        mode: separate keeps the sum over tasks of their quadratics (exactly, in the memory of one); online lets earlier
            Fishers decay by `decay` and pulls to the last weights only.
        n_examples: rows of the task that the Fisher is taken over, at most; null takes all.
        batch_size: rows at once while it is computed; the result doesn't depend on it.

    Cost: keeps two float32 copies of the trainable weights; after each task about one pass over `n_examples` rows.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3; online: Schwarz et al. 2018, arXiv 1805.06370, eq. 9.
    Departs: no. The Fisher is per example (of the summed log-likelihood of its targets), never of a batch mean.
    Reproduces: not verified; permuted MNIST is being worked on (LOG.md).
    """

    strength: float = 100.0
    fisher: str = "sampled"
    mode: str = "separate"
    decay: float = 1.0
    n_examples: int | None = 1000
    batch_size: int = 32

    precision_: dict = learned(dict)  # sum over tasks of F
    pull_: dict = learned(dict)  # sum over tasks of F w*

    neutral: ClassVar[dict] = {"strength": 0.0}

    def __post_init__(self) -> None:
        check_number("ewc.strength", self.strength, low=0)
        check_choice("ewc.fisher", self.fisher, KINDS)
        check_choice("ewc.mode", self.mode, ("separate", "online"))
        check_number("ewc.decay", self.decay, low=0, high=1)
        check_number("ewc.batch_size", self.batch_size, low=1)
        if self.n_examples is not None:
            check_number("ewc.n_examples", self.n_examples, low=1)

    def edit_grads(self, step: Step) -> None:
        if not self.precision_ or self.strength == 0:
            return
        self._follow(next(iter(step.params.values())).device)
        held = [name for name, p in step.params.items() if name in self.precision_ and p.grad is not None]
        with torch.no_grad():
            add_quadratic_gradients(
                [step.params[name] for name in held],
                [self.precision_[name] for name in held],
                [self.pull_[name] for name in held],
                self.strength,
            )

    def _follow(self, device: torch.device) -> None:
        """Move the state to the weights' device: restored state comes on the CPU."""
        if next(iter(self.precision_.values())).device != device:
            for kept in (self.precision_, self.pull_):
                kept.update({name: tensor.to(device) for name, tensor in kept.items()})

    def end_task(self, run: "Run", task: Task) -> None:
        fisher = self.estimate(run, task)
        if self.precision_:
            self._follow(run.accelerator.device)
        weights = run.model.adapters.trainable()
        for name, importance in fisher.items():
            anchor = weights[name].detach().float()
            earlier = self.precision_.get(name, torch.zeros_like(importance))
            if self.mode == "online":
                self.precision_[name] = self.decay * earlier + importance
                self.pull_[name] = self.precision_[name] * anchor
            else:
                self.precision_[name] = earlier + importance
                self.pull_[name] = self.pull_.get(name, torch.zeros_like(importance)) + importance * anchor

    def estimate(self, run: "Run", task: Task) -> dict[str, torch.Tensor]:
        """Return the diagonal of the Fisher on the task's own training rows: {parameter name: tensor of its shape}."""
        generator = generator_for(run.seed, "ewc", run.position, task.name)
        order = torch.randperm(len(task.train), generator=generator)[: self.n_examples].tolist()
        if not order:
            return {}
        rows = select_rows(task.train, sorted(order))
        batches = row_batches(run.model.objective, rows, task, self.batch_size)
        with run.model.evaluating():
            sums, n = sum_of_squared_gradients(
                run.model.network,
                run.model.adapters.trainable(),
                (to_device(batch, run.accelerator.device) for _, batch in batches),
                lambda batch: run.model.objective.forward(run.model.network, batch),
                self.fisher,
                generator,
                rank=run.rank,
                world_size=run.world_size,
            )
        run.all_reduce(list(sums.values()))
        return {name: total / run.sum(n) for name, total in sums.items()}

"""OGD: step at right angles to the gradients of what the model answered on earlier tasks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.functional.quadratic import follow
from everlearn.functional.subspace import new_directions, take_out
from everlearn.learners.grouped import grouped_gradients
from everlearn.learners.loader import row_batches
from everlearn.memory.selection import even_shares
from everlearn.models.lora import NOT_BESIDE_NEW_LORAS
from everlearn.models.matrices import separate_heads
from everlearn.models.objectives import to_device
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import Strategy, learned
from everlearn.streams.sampling import draw_rows, select_rows
from everlearn.types import Outputs, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

VARIANTS = ("gtl", "ave", "all")
MAX_LOGITS = 1000  # `all` takes a pass for each


def answers(outputs: Outputs, variant: str) -> torch.Tensor:
    """Return what a row's gradients are taken of, at each of its targets [n_items, n_values]; their sum is its mean.

    gtl: the logit of the right class; ave: the mean of the logits that the task may use; all: each logit.
    """
    logits = outputs.logits.float().flatten(1)
    n_targets = torch.bincount(outputs.owners)[outputs.owners][:, None]
    if variant == "gtl" and not outputs.targets.is_floating_point():
        logits = logits.gather(1, outputs.targets[:, None])
    elif variant != "all":
        usable = logits > torch.finfo(logits.dtype).min / 8  # the others are masked
        logits = (logits.where(usable, 0).sum(1) / usable.sum(1))[:, None]
    return logits / n_targets


@register("strategy", "ogd")
@dataclass
class OGD(Strategy):
    """Take out of each step its part in the span of the gradients of logits f(x; w) on rows of earlier tasks.

    g <- g - Q' Q g, Q orthonormal [k, n_weights]: to first order, no answer on these rows changes.

    Args:
        capacity: directions kept, over all tasks; tasks share them alike, and each keeps those that carry most. Where
            it is lowered, the others are let go before the next task begins.
        n_examples: rows of the task that gradients are taken on, at most.
        variant: gtl (the logit of the right class), ave (the mean of all logits) or all (each logit; up to 1000). With
            several targets a row, the mean over them. For regression gtl is the same as ave.
        batch_size: rows at once while they are computed; the result doesn't depend on it.
        protect: update (the gradient, and once more the step that the optimizer really took: Adam and weight decay
            leave the subspace) or gradient (as in the paper, right for SGD without weight decay).

    Cost: 8 k n_weights operations a step (4 with protect: gradient), and k n_weights float32 numbers in memory:
    200 directions of a million weights are 0.8 GB. After a task about one pass over `n_examples` rows where linear
    layers hold all that is trained, and their gradients, as many lines of n_weights, while they are sorted.

    Source: Farajtabar et al. 2020, arXiv 1910.07104, algorithm 1; the variants: its sec. 4.
    Departs: protect: update; the directions are bounded, those of a task ordered by a singular value decomposition.
    Heads of single tasks are left out: no other task moves them.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    capacity: int = 200
    n_examples: int = 200
    variant: str = "gtl"
    batch_size: int = 32
    protect: str = "update"

    basis_: dict = learned(dict)  # {"lines": orthonormal [k, n_weights]}
    sizes_: dict = learned(dict)  # name -> number of weights, in the order of a line
    counts_: list = learned(list)  # directions of each task learned

    protects: ClassVar[bool] = True
    conflicts: ClassVar[dict[str, str]] = NOT_BESIDE_NEW_LORAS
    neutral: ClassVar[dict] = {"capacity": 0}

    def __post_init__(self) -> None:
        check_number("ogd.capacity", self.capacity, low=0)
        check_number("ogd.n_examples", self.n_examples, low=1)
        check_choice("ogd.variant", self.variant, VARIANTS)
        check_number("ogd.batch_size", self.batch_size, low=1)
        check_choice("ogd.protect", self.protect, ("update", "gradient"))
        self._working: tuple[int, list[str], torch.Tensor] | None = None
        self._before: torch.Tensor | None = None

    def begin_task(self, run: "Run", task: Task) -> None:
        if sum(self.counts_) <= self.capacity:
            return
        shares = even_shares(self.capacity, len(self.counts_))
        blocks = self.basis_["lines"].split(self.counts_)
        kept = [block[:share] for block, share in zip(blocks, shares, strict=True)]
        self.basis_, self.counts_ = {"lines": torch.cat(kept)}, list(map(len, kept))
        if self.capacity == 0:
            self.basis_, self.sizes_, self.counts_ = {}, {}, []

    def edit_grads(self, step: Step) -> None:
        if not self.basis_:
            return
        names, lines = self._basis_of(step)
        if not names:
            return
        moving = [step.params[name] for name in names]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in moving]
        _spread(take_out(_joined(gradients), lines.T), gradients)
        self._before = _joined(moving) if self.protect == "update" else None

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if not self.basis_ or self._before is None:
            return
        names, lines = self._basis_of(step)
        moving = [step.params[name] for name in names]
        _spread(self._before + take_out(_joined(moving) - self._before, lines.T), moving)

    def end_task(self, run: "Run", task: Task) -> None:
        if self.capacity == 0:
            return
        parameters = self._parameters(run)
        vectors = self.gradients(run, task, parameters)
        shares = even_shares(self.capacity, len(self.counts_) + 1)
        sizes = {name: p.numel() for name, p in parameters.items()}
        wanted = {**self.sizes_, **sizes}
        vectors = _laid_out(vectors, sizes, wanted)
        lines = _laid_out(self.basis_["lines"].to(vectors), self.sizes_, wanted) if self.basis_ else vectors[:0]
        kept = [block[:share] for block, share in zip(lines.split(self.counts_), shares, strict=False)]
        basis = torch.cat([vectors[:0], *kept])
        added = new_directions(vectors, basis, self.capacity - len(basis))
        self.counts_ = [*map(len, kept), len(added)]
        self.basis_ = {"lines": torch.cat([basis, added])}
        self.sizes_ = wanted

    def gradients(self, run: "Run", task: Task, parameters: dict[str, torch.nn.Parameter]) -> torch.Tensor:
        """Return the gradients of the model's answers on the task's own rows, a line for each: [n, n_weights]."""
        generator = generator_for(run.seed, "ogd", run.position, task.name)
        rows = draw_rows(task.train, self.n_examples, generator)
        n_weights = sum(p.numel() for p in parameters.values())
        n_values = self._n_values(run, task) if len(rows) else 0
        vectors = torch.zeros(n_values, len(rows), n_weights, device=run.accelerator.device)
        shared_out = run.processes.share
        with run.model.evaluating():
            for indices, batch in row_batches(run.model.objective, rows, task, self.batch_size, **shared_out):
                groups = list(range(len(indices)))
                for value in range(n_values):
                    vectors[value, indices] = grouped_gradients(
                        run, parameters, batch, groups, len(groups), lambda o, v=value: answers(o, self.variant)[:, v]
                    )
        run.processes.all_reduce([vectors])
        return vectors.flatten(0, 1)

    def _n_values(self, run: "Run", task: Task) -> int:
        if self.variant != "all":
            return 1
        _, batch = next(row_batches(run.model.objective, select_rows(task.train, [0]), task, 1))
        with torch.no_grad(), run.model.evaluating():
            outputs = run.model.objective.forward(run.model.network, to_device(batch, run.accelerator.device))
        n_logits = answers(outputs, "all").shape[1]
        if n_logits > MAX_LOGITS:
            way_out = "Use ogd.variant: gtl or ave"
            raise ConfigError(describe("ogd.variant", f"all would take {n_logits} passes a row", "all", way_out))
        return n_logits

    def _parameters(self, run: "Run") -> dict[str, torch.nn.Parameter]:
        apart = separate_heads(run.model.adapters)
        return {name: p for name, p in run.model.adapters.trainable().items() if id(p) not in apart}

    def _basis_of(self, step: Step) -> tuple[list[str], torch.Tensor]:
        """Return the names of what is held and an orthonormal basis over just those, made once a task."""
        if self._working is None or self._working[0] != step.run.position:
            names = [name for name in self.sizes_ if name in step.params]
            follow(step.run.accelerator.device, self.basis_)
            lines = self.basis_["lines"]
            if 0 < len(names) < len(self.sizes_):  # others are frozen by now: what is left is no longer orthonormal
                lines = _laid_out(lines, self.sizes_, {name: self.sizes_[name] for name in names})
                lines = new_directions(lines, lines[:0], len(lines))
            self._working = (step.run.position, names, lines)
        return self._working[1], self._working[2]


def _laid_out(lines: torch.Tensor, sizes: dict[str, int], wanted: dict[str, int]) -> torch.Tensor:
    """Return lines over the pieces `sizes` as lines over the pieces `wanted`; what they didn't have is 0."""
    if list(sizes) == list(wanted):
        return lines
    pieces = dict(zip(sizes, lines.split(list(sizes.values()), 1), strict=True))
    return torch.cat([pieces.get(name, lines.new_zeros(len(lines), size)) for name, size in wanted.items()], 1)


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.detach().flatten().float() for t in tensors])


def _spread(flat: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    """Copy a vector into tensors laid end to end."""
    pieces = flat.split([t.numel() for t in tensors])
    torch._foreach_copy_(tensors, [piece.view_as(t) for piece, t in zip(pieces, tensors, strict=True)])

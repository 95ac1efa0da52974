"""GPM: layers may change only for inputs that earlier tasks never showed them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from everlearn.errors import check_choice, check_number
from everlearn.functional.subspace import complement, leading_directions, take_out
from everlearn.learners.inputs import input_moments
from everlearn.models.lora import NOT_BESIDE_NEW_LORAS
from everlearn.models.matrices import as_rows, class_parameters, separate_heads, trainable_matrices
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import Strategy, learned
from everlearn.streams.sampling import draw_rows
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run


@dataclass
class Guarded:
    """A parameter that moves in part: not along `basis` (null: not at all), but freely in the rows `free`.

    Where the basis holds more than half of the directions, `rest` is what is at right angles to it: fewer products.
    """

    parameter: nn.Parameter
    layer: nn.Module | None
    free: torch.Tensor | None
    basis: torch.Tensor | None = None
    rest: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.basis is not None and 2 * self.basis.shape[1] > self.basis.shape[0]:
            self.rest = complement(self.basis)

    def allowed(self, change: torch.Tensor) -> torch.Tensor:
        """Return what may stay of a gradient or of a change."""
        rows = as_rows(self.layer, change)
        if self.rest is not None:
            kept = ((rows.float() @ self.rest) @ self.rest.T).to(rows.dtype)
        elif self.basis is not None:
            kept = take_out(rows.float(), self.basis).to(rows.dtype)
        else:
            kept = torch.zeros_like(rows)
        if self.free is not None:
            kept[self.free] = rows[self.free]
        return as_rows(self.layer, kept)


@register("strategy", "gpm")
@dataclass
class GPM(Strategy):
    """Take out of each layer's step what acts on the main directions M of the inputs that earlier tasks gave it.

    G <- G - G M M' for the gradient G [out, in] of each linear layer, M [in, k] orthonormal; after a task, M grows by
    the fewest singular vectors of the layer's inputs so that it holds a share `threshold` of their energy. This covers
    `nn.Linear`, Conv1D and both matrices of a LoRA (whose second one has as many input directions as its rank).

    Args:
        threshold: epsilon, the share of the squared length of each layer's inputs that is protected.
        growth: what is added to it with each task.
        n_examples: rows of the task that inputs are taken from, at most; all their tokens count.
        batch_size: rows at once meanwhile; the result doesn't depend on it.
        protect: update (the gradient, and once more the step that the optimizer really took: Adam and weight decay
            leave the subspace) or gradient (as in the paper, right for SGD without weight decay).
        others: what becomes of all that is trainable but no linear weight (biases, norms, embeddings) after the first
            task: frozen or free. Heads of single tasks and rows for new classes are always free.

    Cost: per step and layer 4 products of [out, in] with [in, k], or [in, in - k] where that is less (2 with protect:
    gradient), and a copy of the weights; after a task a forward pass over `n_examples` rows and an eigendecomposition
    of [in, in] a layer. Keeps k vectors of length `in` a layer, at most a square, however many tasks there are.

    Source: Saha et al. 2021, arXiv 2103.09762, eq. 5 to 9. Departs: protect: update; the paper's networks have no
    biases and learn batch normalisation in the first task only.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    threshold: float = 0.97
    growth: float = 0.0
    n_examples: int = 300
    batch_size: int = 32
    protect: str = "update"
    others: str = "frozen"

    bases_: dict = learned(dict)  # name of a weight -> orthonormal columns [in, k]
    frozen_: list = learned(list)  # names of parameters that stay as they are

    protects: ClassVar[bool] = True
    conflicts: ClassVar[dict[str, str]] = NOT_BESIDE_NEW_LORAS
    unsuited: ClassVar[dict[str, str]] = {"prompt": NO_LAYERS}
    neutral: ClassVar[dict] = {"threshold": 0.0, "others": "free"}

    def __post_init__(self) -> None:
        check_number("gpm.threshold", self.threshold, low=0, high=1)
        check_number("gpm.growth", self.growth, low=0, high=1)
        check_number("gpm.n_examples", self.n_examples, low=1)
        check_number("gpm.batch_size", self.batch_size, low=1)
        check_choice("gpm.protect", self.protect, ("update", "gradient"))
        check_choice("gpm.others", self.others, ("frozen", "free"))
        self._guarded: tuple[int, list[Guarded], list[nn.Parameter]] | None = None
        self._before: list[torch.Tensor] = []

    def edit_grads(self, step: Step) -> None:
        guarded, still = self._guard(step.run)
        for parameter in still:
            parameter.grad = None  # no optimizer, momentum or weight decay moves it then
        for one in guarded:
            if one.parameter.grad is not None:
                one.parameter.grad.copy_(one.allowed(one.parameter.grad))
        self._before = [one.parameter.detach().clone() for one in guarded] if self.protect == "update" else []

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        guarded, _ = self._guard(step.run)
        for one, before in zip(guarded, self._before, strict=False):
            one.parameter.copy_(before + one.allowed(one.parameter - before))

    def end_task(self, run: "Run", task: Task) -> None:
        threshold = min(1.0, self.threshold + self.growth * len(run.learned))
        for name, moment in self.input_moments(run, task).items():
            basis = self.bases_.get(name, moment.new_zeros(len(moment), 0)).to(moment.device)
            new = leading_directions(moment, basis, threshold)
            self.bases_[name] = torch.cat([basis.float(), new.float()], 1)
        if self.others == "frozen":
            apart = separate_heads(run.model.adapters)
            trainable = run.model.adapters.trainable()
            self.frozen_ = [name for name, p in trainable.items() if name not in self.bases_ and id(p) not in apart]

    def input_moments(self, run: "Run", task: Task) -> dict[str, torch.Tensor]:
        """Return {name of a weight: sum over the layer's inputs x of x x', float64 [in, in]} on the task's own rows."""
        generator = generator_for(run.seed, "gpm", run.position, task.name)
        rows = draw_rows(task.train, self.n_examples, generator)
        layers = trainable_matrices(run.model.adapters, separate_heads(run.model.adapters))
        n_inputs = {name: as_rows(layer, layer.weight).shape[1] for layer, name in layers.items()}
        return input_moments(run, task, rows, layers, n_inputs, self.batch_size)

    def _guard(self, run: "Run") -> tuple[list[Guarded], list[nn.Parameter]]:
        """Return what is held in part in this task, and what is held still; made once a task."""
        if self._guarded is None or self._guarded[0] != run.position:
            new, params = new_classes(run), run.model.adapters.trainable()
            guarded = [
                Guarded(params[name], layer, new.get(name), self.bases_[name].to(params[name].device))
                for layer, name in trainable_matrices(run.model.adapters).items()
                if name in self.bases_ and self.bases_[name].shape[1]
            ]
            frozen = [name for name in self.frozen_ if name in params]
            guarded += [Guarded(params[name], None, new[name]) for name in frozen if name in new]
            self._guarded = (run.position, guarded, [params[name] for name in frozen if name not in new])
        return self._guarded[1:]


def new_classes(run: "Run") -> dict[str, torch.Tensor]:
    """Return {name of a parameter of a plain module's output layer: whether each row is for no class of before}."""
    adapters = run.model.adapters
    output = class_parameters(adapters) if adapters.head is None else set()
    known = {adapters.columns[label] for task in run.past_tasks() for label in adapters.task_labels.get(task, ())}
    found = {name: p for name, p in adapters.trainable().items() if id(p) in output}
    rows = {name: [row not in known for row in range(len(p))] for name, p in found.items()}
    return {name: torch.tensor(free, device=found[name].device) for name, free in rows.items() if any(free)}

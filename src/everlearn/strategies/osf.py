"""Orthogonal subspace fine-tuning: what each matrix does most stays; only its weak directions learn."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_choice, check_number
from everlearn.functional.quadratic import follow
from everlearn.functional.subspace import take_out_both, top_directions
from everlearn.models.matrices import class_parameters, trainable_matrices
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.strategy import Strategy, learned
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run


@register("strategy", "osf")
@dataclass
class OSF(Strategy):
    """Let each matrix W = U S V' change by (1 - U_k U_k') D (1 - V_k V_k') only: U_k' W and W V_k stay as they are.

    U_k and V_k are the singular vectors of its largest singular values when the task begins. Gradients are projected,
    and once more the step that the optimizer really took, for Adam and weight decay leave the subspace.

    Args:
        kept: share of each matrix's singular directions that stays (of the smaller of its two sides).
        from_start: hold what the model knows before the first task too, as a pretrained one does.
        others: what becomes of all that is trainable but no weight of a linear layer (biases, norms, embeddings): free
            or frozen. The output layer of a classifier is always free.

    Cost: before each task a singular value decomposition of each matrix (some 20 m n^2 operations for m x n, m >= n);
    per step 8 k m n operations for each, and a copy of the weights. Keeps k (m + n) numbers for each during a task,
    nothing between tasks.

    Source: Nayak et al. 2025, arXiv 2504.07097. Departs: the update is projected, not only the gradient; the matrix
    itself is trained in place of its factors; the same share is kept in every layer, where the paper gives a layer more
    the more alike its inputs and outputs are; the output layer of a language model, where it is no embedding, is held
    like any matrix.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    kept: float = 0.5
    from_start: bool = True
    others: str = "free"

    directions_: dict = learned(dict)  # name of a weight -> {"left": U_k, "right": V_k}, while a task is learned

    unsuited: ClassVar[dict[str, str]] = {
        "lora": "it holds directions of full matrices; a LoRA's own start at zero",
        "prompt": NO_LAYERS,
    }
    neutral: ClassVar[dict] = {"kept": 0.0}

    def __post_init__(self) -> None:
        check_number("osf.kept", self.kept, low=0, high=1)
        check_choice("osf.others", self.others, ("free", "frozen"))
        self._before: list[torch.Tensor] = []

    def begin_task(self, run: "Run", task: Task) -> None:
        self.directions_ = {}
        if self.kept == 0 or not (self.from_start or run.past_tasks()):
            return
        for layer, name in trainable_matrices(run.model.adapters, class_parameters(run.model.adapters)).items():
            weight = layer.weight.detach()
            left, right = top_directions(weight, round(self.kept * min(weight.shape)))
            self.directions_[name] = {"left": left, "right": right}

    def edit_grads(self, step: Step) -> None:
        if not self.directions_:
            return
        follow(next(iter(step.params.values())).device, *self.directions_.values())
        if self.others == "frozen":
            output = class_parameters(step.run.model.adapters)
            for name, parameter in step.params.items():
                if name not in self.directions_ and id(parameter) not in output:
                    parameter.grad = None  # no optimizer, momentum or weight decay moves it then
        for name, parameter in self._held(step).items():
            if parameter.grad is not None:
                parameter.grad.copy_(self._allowed(name, parameter.grad))
        self._before = [parameter.detach().clone() for parameter in self._held(step).values()]

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if not self.directions_:
            return
        for (name, parameter), before in zip(self._held(step).items(), self._before, strict=True):
            parameter.copy_(before + self._allowed(name, parameter - before))

    def end_task(self, run: "Run", task: Task) -> None:
        self.directions_ = {}

    def _held(self, step: Step) -> dict[str, torch.nn.Parameter]:
        return {name: step.params[name] for name in self.directions_ if name in step.params}

    def _allowed(self, name: str, change: torch.Tensor) -> torch.Tensor:
        kept = self.directions_[name]
        return take_out_both(change.float(), kept["left"], kept["right"]).to(change.dtype)

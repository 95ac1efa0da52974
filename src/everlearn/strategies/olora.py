"""O-LoRA: each task learns a LoRA whose input directions are orthogonal to those of the tasks before."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_number
from everlearn.models.lora import PAST, lora_layers, matrix_of, next_lora
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.strategy import ADDS_LAYERS, Strategy
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_REASON = "both begin a LoRA of their own for every task"
_OWN = "it keeps a task's share of the one LoRA, which this method begins anew with every task"


def orthogonality_gradient(earlier: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Return the gradient of ||A_earlier A_new^T||_F^2 with respect to A_new, 2 (A_new A_earlier^T) A_earlier.

    Args:
        earlier: [..., earlier ranks, in_features]; new: [..., rank, in_features].
    """
    return 2 * (new @ earlier.mT) @ earlier


@register("strategy", "olora")
@dataclass
class OLoRA(Strategy):
    """Begin a LoRA with every task, the earlier ones frozen, and add strength * sum_layers sum_i ||A_i A_t^T||_F^2.

    Args:
        strength: lambda_1 of the paper.
        norm_strength: lambda_2 of the authors' code, the weight of sum ||A_t||_F + ||B_t||_F over layers.

    Cost: rank * (inputs + outputs) numbers a layer and task; per step two products of the A matrices.

    Source: Wang et al. 2023, arXiv 2310.14152, eq. 7 and 8. Departs: no. The authors' code sums |A_i A_t^T| in place of
    its squares, which at the same strength pulls much harder once the two are nearly orthogonal.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    strength: float = 0.5
    norm_strength: float = 0.0

    conflicts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("inclora", "inflora"), _REASON),
        **dict.fromkeys(("packnet", "pnn", "hat", "separate"), _OWN),
    }
    unsuited: ClassVar[dict[str, str]] = {
        "trainer": ADDS_LAYERS,
        "full": "there is no LoRA to begin anew: all weights are trained",
        "new_tokens": "peft trains new tokens' embeddings in one LoRA only; use a model that has the chat's marks",
        "prompt": NO_LAYERS,
    }

    def __post_init__(self) -> None:
        check_number("olora.strength", self.strength, low=0)
        check_number("olora.norm_strength", self.norm_strength, low=0)
        self._groups: tuple[int, list] | None = None

    def adapt_model(self, run: "Run", task: Task) -> None:
        if run.learned:
            next_lora(run)

    def edit_grads(self, step: Step) -> None:
        with torch.no_grad():
            if self.strength > 0:
                for names, earlier in self._earlier(step):
                    new = [step.params[name] for name in names if step.params[name].grad is not None]
                    change = orthogonality_gradient(earlier, torch.stack(new)).unbind()
                    torch._foreach_add_([p.grad for p in new], list(change), alpha=self.strength)
            if self.norm_strength > 0:
                new = [p for name, p in step.params.items() if ".lora_" in name and p.grad is not None]
                # clamped, for B begins at 0, where the norm has no gradient
                norms = torch._foreach_clamp_min(torch._foreach_norm(new), 1e-12)
                torch._foreach_add_([p.grad for p in new], torch._foreach_div(new, norms), alpha=self.norm_strength)

    def _earlier(self, step: Step) -> list[tuple[list[str], torch.Tensor]]:
        """Return the layers in groups of one shape: (names of the new A, the earlier A [layers, ranks, inputs])."""
        if self._groups is not None and self._groups[0] == step.run.position:
            return self._groups[1]
        groups: dict[torch.Size, list[tuple[str, torch.Tensor]]] = {}
        new = step.run.model.network.active_adapter
        for name, layer in lora_layers(step.run.model.network).items():
            if PAST in layer.lora_A:
                earlier = matrix_of(layer.lora_A[PAST])
                groups.setdefault(earlier.shape, []).append((f"{name}.lora_A.{new}.weight", earlier))
        found = [([n for n, _ in group], torch.stack([e for _, e in group])) for group in groups.values()]
        self._groups = (step.run.position, found)
        return found

"""Dark experience replay++: stored logits on one draw from the memory, labels on another."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from everlearn.errors import check_number
from everlearn.memory.dark import DarkReplay
from everlearn.models.objectives import losses_at
from everlearn.registry import register
from everlearn.types import Mixture, Step

if TYPE_CHECKING:
    from everlearn.way import Run


@register("strategy", "derpp")
@dataclass
class DERpp(DarkReplay):
    """Hold the logits of stored rows where they were, and learn the labels of others once more.

    mean CE of new rows + alpha * mean (z_stored - z)^2 of one draw of old rows + beta * mean CE of another.

    Args:
        capacity: rows kept over all tasks, a uniform sample of all rows seen (reservoir). Where it is lowered, rows
            over it are let go before the next task begins, drawn uniformly; where it is raised, later rows are taken at
            the rate at which earlier ones are held, until it is full.
        alpha: weight of an old row's squared difference of logits beside a new row's cross-entropy.
        beta: weight of an old row's cross-entropy.
        ratio: old rows in a batch for each new row, in each of the two draws.
        weigh_by: row, so that in a step each old row counts in the loss as much as a new one does on average, whatever
            their lengths; or token, so that each old target counts as much as a new one.
        top_k: logits kept at each target token of a language model, beside the rest as one.
        batch_size: rows at once while logits are recorded; the result doesn't depend on it.

    Cost: (1 + 2 * ratio) times plain training from the second task on; keeps what `der` keeps.

    Source: Buzzega et al. 2020, arXiv 2004.07211, eq. 6.
    Departs: as `der` does: stored at the end of a task, squares averaged over classes, and the means weighed by
    their rows, which at ratio 1 divides the three terms by 3.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("derpp.beta", self.beta, low=0)

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        mixture = super().train_data(mixture, run)
        return Mixture((*mixture.groups, mixture.groups[self._group])) if self._group else mixture

    def penalty(self, step: Step) -> torch.Tensor | None:
        dark = super().penalty(step)
        if dark is None:
            return None
        labelled = step.items_of({self._group + 1})
        return dark + (self.beta - 1) * step.total(losses_at(step.outputs, labelled), labelled) / len(labelled)

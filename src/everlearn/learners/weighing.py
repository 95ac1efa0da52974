"""What the loss weighs: how much each target of a step counts, where rows that are mixed in are to count as rows.

In a step with n_0 new rows and n_g rows of each group g that is mixed in by row,

    loss = (n_0 L_0 + sum_g n_g L_g) / (n_0 + sum_g n_g)

L_0 is the mean over the new rows' targets, L_g the mean over the group's rows of each row's mean over its targets. The
n are of the whole step, over its micro-batches and all processes, so that the loss doesn't depend on how it is cut.
Without a group by row the loss is the mean over all targets; so it is where each row has one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from everlearn.models.objectives import Batch
from everlearn.types import Step

if TYPE_CHECKING:
    from everlearn.way import Run

MANY_TARGETS = ("causal", "tag")  # kinds of model whose rows can have several


def row_weights(
    run: "Run", step: Step, micro_batches: Sequence[Batch], rows: Sequence[Sequence[tuple[int, int]]]
) -> list[torch.Tensor | None]:
    """Return for each micro-batch of this process how much a target of each of its rows counts [n_rows].

    The mean over the targets of the whole step is 1. None where all targets count alike.

    Args:
        rows: (group, row) of each row of each micro-batch.
    """
    if not step.by_row or run.model.kind not in MANY_TARGETS:
        return [None] * len(micro_batches)
    counts = [run.model.objective.items_of_rows(batch) if batch else torch.zeros(0) for batch in micro_batches]
    new = [torch.tensor([group == 0 for group, _ in own], dtype=torch.bool) for own in rows]
    alike = [torch.tensor([group in step.by_row for group, _ in own], dtype=torch.bool) for own in rows]
    totals = torch.zeros(5, dtype=torch.float64)
    for n, own, mixed in zip(counts, new, alike, strict=True):
        totals += torch.stack([n.sum(), n[own].sum(), own.sum(), n[mixed].sum(), (n[mixed] > 0).sum()])
    totals = totals.to(run.accelerator.device)
    run.processes.all_reduce([totals])
    n_items, n_new_items, n_new, n_mixed_items, n_mixed = totals.tolist()
    if not n_mixed:
        return [None] * len(micro_batches)
    of_row = n_new_items / n_new if n_new_items else 1.0  # what a new row counts on average, in targets
    scale = n_items / (n_items - n_mixed_items + n_mixed * of_row)
    return [scale * torch.where(mixed, of_row / n.clamp(min=1), 1.0) for n, mixed in zip(counts, alike, strict=True)]

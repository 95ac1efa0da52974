"""The rows of a task that was just learned, best first, by what the model makes of them or by what they are."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch

from everlearn.memory.scores import row_embeddings, row_entropies, row_gradients, row_losses, row_margins
from everlearn.memory.selection import diverse_order, herding_order, order_of
from everlearn.types import Rows, Task

if TYPE_CHECKING:
    from everlearn.way import Run

BY_CLASS = ("ring", "balanced", "herding")  # their budget is shared by task and class, not by task alone


def rank_rows(
    how: str,
    run: "Run",
    task: Task,
    rows: Rows,
    *,
    classes: Sequence[Hashable] | None,
    n_kept: int,
    room: int,
    batch_size: int,
    generator: torch.Generator,
) -> list[int]:
    """Return rows of a task, best first.

    Args:
        how: ring, balanced, entropy, margin, highest_loss, lowest_loss, herding or gradient.
        classes: of each row, or None.
        n_kept: how many rows, the first ones, the memory held before, best first.
        room: how many can be kept at most; more need no rank.
    """
    n = len(rows)
    if how == "ring":
        return [*reversed(range(n_kept, n)), *range(n_kept)]
    if how == "balanced":
        return torch.randperm(n, generator=generator).tolist()
    if how == "gradient":
        return diverse_order(row_gradients(run, task, rows), room, generator)
    if how == "herding":
        embeddings = row_embeddings(run, task, rows, batch_size)
        of_class: dict[Hashable, list[int]] = {}
        for row, own in enumerate(classes or [None] * n):
            of_class.setdefault(own, []).append(row)
        return [own[i] for own in of_class.values() for i in herding_order(embeddings[own], room)]
    measure = {"entropy": row_entropies, "margin": row_margins}.get(how, row_losses)
    return order_of(measure(run, task, rows, batch_size), highest=how in ("entropy", "highest_loss"))

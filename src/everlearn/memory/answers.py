"""What a model answered to rows, kept to compare later answers with: its scores at each target, cut to the largest."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from everlearn.functional.distill import outcomes_at, top_outcomes
from everlearn.learners.gradients import to_device
from everlearn.learners.loader import row_batches
from everlearn.types import Outputs, Rows, Task

if TYPE_CHECKING:
    from everlearn.runs import Run

# values [n_items, n_outcomes], float16 where they were cut, else float32; columns [n_items, k], int32, -1 where a line
# has fewer classes than others; counts [n_rows], int32: items of each row. Items stand in the order of their rows.
Answers = dict[str, torch.Tensor]
NO_COLUMN = -1


def record_answers(
    run: "Run",
    task: Task,
    rows: Rows,
    *,
    score: Callable[[Outputs], Sequence[torch.Tensor]],
    top_k: int | None,
    batch_size: int,
    past: Sequence[str] = (),
) -> list[Answers]:
    """Return what the model answers to rows now, in evaluation mode, the same in every process.

    Args:
        score: outputs -> one or more score tensors [n_items, n_classes], each kept as answers of its own.
        top_k: classes kept of each item, the others as one outcome; null keeps all.
        past: earlier tasks whose heads are asked.

    Returns:
        One for each tensor of `score`; none if there are no rows.
    Cost: one forward pass over the rows, shared out over processes.
    """
    done: dict[int, list[Answers]] = {}
    batches = row_batches(run.model.objective, rows, task, batch_size, rank=run.rank, world_size=run.world_size)
    with torch.no_grad(), run.model.evaluating(), run.accelerator.autocast():
        for indices, batch in batches:
            batch = to_device(batch, run.accelerator.device)
            outputs = run.model.objective.forward(run.model.network, batch, past)
            counts = torch.bincount(outputs.owners, minlength=len(indices)).to("cpu", torch.int32)
            done[indices[0]] = [{**_cut(scores.float(), top_k), "counts": counts} for scores in score(outputs)]
    together = {first: answers for part in run.gather(done) for first, answers in part.items()}
    in_order = [together[first] for first in sorted(together)]
    return [join_answers(pieces) for pieces in zip(*in_order, strict=True)]


def join_answers(pieces: Sequence[Answers]) -> Answers:
    """Return the answers to the rows of all pieces; those of fewer classes are filled up."""
    filled = {"values": 0, "columns": NO_COLUMN, "counts": 0}
    joined = {}
    for name, value in filled.items():
        tensors = [piece[name] for piece in pieces]
        if name != "counts":
            width = max(tensor.shape[1] for tensor in tensors)
            tensors = [F.pad(tensor, (0, width - tensor.shape[1]), value=value) for tensor in tensors]
        joined[name] = torch.cat(tensors)
    return joined


class AnswerTable:
    """Answers, found by row."""

    def __init__(self, answers: Answers):
        self.n_rows = len(answers["counts"])
        self.with_rest = answers["values"].shape[1] > answers["columns"].shape[1]
        self._answers = answers
        self._ends = [0, *accumulate(answers["counts"].tolist())]

    def _items(self, rows: Sequence[int]) -> torch.Tensor:
        return torch.tensor([i for row in rows for i in range(*self._ends[row : row + 2])], dtype=torch.long)

    def pick(self, rows: Sequence[int]) -> Answers:
        """Return the answers to some rows, in that order, in the form in which they are saved."""
        items, rows = self._items(rows), torch.tensor(rows, dtype=torch.long)
        own = {name: self._answers[name][items] for name in ("values", "columns")}
        return {**own, "counts": self._answers["counts"][rows]}

    def compare(self, rows: Sequence[int], scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (what was answered to rows, what `scores` are for the same outcomes, whether each was recorded).

        Args:
            scores: [n_items of the rows, n_classes], in the order of the rows; classes that came later stand last.
        """
        items = self._items(rows)
        values = self._answers["values"][items].to(scores.device).float()
        columns = self._answers["columns"][items].to(scores.device).long()
        known = F.pad(columns != NO_COLUMN, (0, int(self.with_rest)), value=True)
        return values, outcomes_at(scores.float(), columns.clamp(min=0), self.with_rest), known


def _cut(scores: torch.Tensor, top_k: int | None) -> Answers:
    n_classes = scores.shape[1]
    values, columns = top_outcomes(scores, n_classes if top_k is None else top_k)
    if columns.shape[1] < n_classes:
        values = values.clamp(min=torch.finfo(torch.float16).min).half()
    return {"values": values.cpu(), "columns": columns.to("cpu", torch.int32)}

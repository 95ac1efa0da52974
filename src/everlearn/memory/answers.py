"""What a model answered to rows, kept to compare later answers with: its scores at each target, cut to the largest."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from everlearn.functional.distill import outcomes_at, top_outcomes
from everlearn.learners.loader import row_batches
from everlearn.models.objectives import to_device
from everlearn.types import Outputs, Rows, Task

if TYPE_CHECKING:
    from everlearn.way import Run

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
    batches = row_batches(run.model.objective, rows, task, batch_size, **run.processes.share)
    with torch.no_grad(), run.model.evaluating(), run.accelerator.autocast():
        for indices, batch in batches:
            batch = to_device(batch, run.accelerator.device)
            outputs = run.model.objective.forward(run.model.network, batch, past)
            counts = torch.bincount(outputs.owners, minlength=len(indices)).to("cpu", torch.int32)
            done[indices[0]] = [{**_cut(scores.float(), top_k), "counts": counts} for scores in score(outputs)]
    together = {first: answers for part in run.processes.gather(done) for first, answers in part.items()}
    in_order = [together[first] for first in sorted(together)]
    return [join_answers(pieces) for pieces in zip(*in_order, strict=True)]


def cut_answers(answers: Answers, top_k: int) -> Answers:
    """Return answers of which at most `top_k` classes an item are kept, the others as one outcome."""
    columns = answers["columns"]
    if top_k >= columns.shape[1]:
        return answers
    n = columns.shape[1]
    outcomes = answers["values"].float()
    scores = outcomes[:, :n].masked_fill(columns == NO_COLUMN, -torch.inf)
    top = scores.topk(top_k, dim=1)
    others = torch.cat([scores.scatter(1, top.indices, -torch.inf), outcomes[:, n:]], 1).logsumexp(1, keepdim=True)
    return {
        "values": _small(torch.cat([top.values, others], 1)),
        "columns": columns.gather(1, top.indices),
        "counts": answers["counts"],
    }


def join_answers(pieces: Sequence[Answers]) -> Answers:
    """Return the answers to the rows of all pieces; those of fewer classes are filled up, before the rest."""
    with_rest = any(_has_rest(piece) for piece in pieces)
    if with_rest:  # what has all its classes gives its least one to the rest
        pieces = [piece if _has_rest(piece) else cut_answers(piece, piece["columns"].shape[1] - 1) for piece in pieces]
    width = max(piece["columns"].shape[1] for piece in pieces)
    values, columns = [], []
    for piece in pieces:
        n = piece["columns"].shape[1]
        columns.append(F.pad(piece["columns"], (0, width - n), value=NO_COLUMN))
        outcomes, rest = piece["values"].split([n, int(with_rest)], 1)
        values.append(torch.cat([F.pad(outcomes, (0, width - n)), rest], 1))
    counts = [piece["counts"] for piece in pieces]
    return {"values": torch.cat(values), "columns": torch.cat(columns), "counts": torch.cat(counts)}


class AnswerTable:
    """Answers, found by row."""

    def __init__(self, answers: Answers):
        self.n_rows = len(answers["counts"])
        self.with_rest = _has_rest(answers)
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
        there = columns != NO_COLUMN
        known = F.pad(there, (0, int(self.with_rest)), value=True)
        columns = torch.where(there, columns, columns[:, :1])  # what is filled up must not be missing in the rest
        return values, outcomes_at(scores.float(), columns, self.with_rest), known


def _cut(scores: torch.Tensor, top_k: int | None) -> Answers:
    n_classes = scores.shape[1]
    values, columns = top_outcomes(scores, n_classes if top_k is None else top_k)
    if columns.shape[1] < n_classes:
        values = _small(values)
    return {"values": values.cpu(), "columns": columns.to("cpu", torch.int32)}


def _small(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(min=torch.finfo(torch.float16).min).half()


def _has_rest(answers: Answers) -> bool:
    return answers["values"].shape[1] > answers["columns"].shape[1]

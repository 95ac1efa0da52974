"""Inputs and targets of a plain module made to fit its output, or refused, before anything is trained.

What a module puts out for a row decides what its targets can mean:

    output [C], C > 1     targets that are whole numbers, of any type, [] or [1]: class 0 to C - 1; whole one-hot rows
                          [C]: the class of the 1; real numbers [C]: regression
    output [] or [1]      real numbers [] or [1]: regression
    output of any shape   real numbers of that shape: regression
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from everlearn.errors import ModelError, StreamError, describe
from everlearn.models.load import Model
from everlearn.seeds import seeded
from everlearn.streams.sampled import SampledRows
from everlearn.types import Rows, Task, TensorRows


@dataclass(frozen=True)
class Fit:
    """How the rows of a task are made to fit: `targets` is as_is, class (whole numbers) or one_hot."""

    targets: str
    dtype: torch.dtype | None  # of real inputs, where the module's own is another

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch that fits."""
        x = x.to(self.dtype) if self.dtype is not None else x
        if self.targets == "one_hot":
            return x, y.long().argmax(1)
        return x, y.reshape(len(y)).long() if self.targets == "class" else y


@dataclass(frozen=True)
class FittedCollate:
    """The user's collate_fn, and what is done with its batches."""

    collate: Callable[[list[Any]], tuple[torch.Tensor, torch.Tensor]]
    fit: Fit

    def __call__(self, samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fit(*self.collate(samples))


def fit_task(task: Task, model: Model) -> Task:
    """Return a task of tensors as a plain module can learn it; its rows differ in type and shape at most.

    Raises:
        StreamError: if inputs or targets are not finite, or don't fit the module's output: which, and the way out.
        ModelError: if the module's output is no tensor [batch, ...].
    """
    where = f"task {task.name!r}"
    parts = {name: rows for name, rows in (("train", task.train), ("evaluation", task.evaluation)) if len(rows)}
    for name, rows in parts.items():
        _check_finite(f"{where}: {name}", task, rows)
    x = _inputs(task)
    own = next((p.dtype for p in model.network.parameters() if p.is_floating_point()), x.dtype)
    dtype = own if x.is_floating_point() and x.dtype != own else None
    output = output_of(where, model, x if dtype is None else x.to(dtype)).shape[1:]
    fits = {name: Fit(_meaning(f"{where}: {name}", task.targets(rows), output), dtype) for name, rows in parts.items()}
    if len({fit.targets == "as_is" for fit in fits.values()}) > 1:
        way_out = "Give both whole numbers for classes, or both real numbers"
        what = "its targets are classes in one of training and evaluation only"
        raise StreamError(describe(where, what, {name: fit.targets for name, fit in fits.items()}, way_out))
    loader = task.loader
    if loader is not None:
        loader = replace(loader, collate=FittedCollate(loader.collate, fits["train"]))
    notes = task.notes
    if fits["train"].targets == "as_is" and output.numel() > 1 and _is_one_hot(task.targets(task.train)):
        told = "its targets are one-hot rows of real numbers, learned as numbers; to learn classes, pass y.argmax(1)"
        notes = (*notes, f"{where}: {told}.")
    fitted = {name: _fitted(rows, fits[name]) for name, rows in parts.items()}
    task = replace(task, **fitted, loader=loader, notes=notes)
    for name, rows in fitted.items():
        _check_classes(f"{where}: {name}", task.targets(rows), output)
    return task


def _inputs(task: Task) -> torch.Tensor:
    """Return the inputs of two training rows."""
    if isinstance(task.train, TensorRows):
        return task.train[:2].x
    return task.loader.collate([(row["x"], row["y"]) for row in task.train[:2]])[0]


def output_of(where: str, model: Model, x: torch.Tensor) -> torch.Tensor:
    """Return what the module puts out for some inputs; nothing of its state changes.

    Raises:
        StreamError: if it can't take them. ModelError: if its output is no tensor [batch, ...].
    """
    device = next((p.device for p in model.network.parameters()), x.device)
    try:
        with torch.no_grad(), model.evaluating(), seeded(0):
            output = model.network(x.to(device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        way_out = "Give it inputs that model(x) takes"
        raise StreamError(describe(where, f"the model can't take its inputs ({reason})", _seen(x), way_out)) from error
    if not isinstance(output, torch.Tensor) or output.ndim < 1 or len(output) != len(x):
        way_out = "Let forward(x) return a tensor of one line a row: class scores, or predictions"
        got = type(output).__name__ if not isinstance(output, torch.Tensor) else _seen(output)
        raise ModelError(describe("model", "its output is no tensor with a line for each row", got, way_out))
    return output


def _meaning(where: str, y: torch.Tensor, output: torch.Size) -> str:
    """Return what the targets [n, ...] mean for an output [...] of a row; see the module's docstring."""
    shape, seen = y.shape[1:], f"targets {_seen(y)} for an output {list(output)} a row"
    whole = not y.is_floating_point() or bool((y == y.round()).all())
    if y.is_complex():
        raise StreamError(describe(where, "its targets are complex numbers", seen, "Use real numbers, or classes"))
    if y.is_floating_point() and (shape == output or (shape.numel() == output.numel() == 1)):
        return "as_is"
    if len(output) == 1 and output[0] > 1 and whole and shape.numel() == 1:
        return "class"
    if len(output) == 1 and shape == output and output[0] > 1 and _is_one_hot(y):
        return "one_hot"
    if len(output) == 1 and output[0] == 1 and whole and shape.numel() == 1:
        way_out = "Give the model an output for each class, or targets of real numbers (y.float()) for regression"
        raise StreamError(describe(where, "its targets are whole numbers, and the model has one output", seen, way_out))
    way_out = "Use one class a row (whole numbers from 0), or real numbers of the shape of the model's output"
    raise StreamError(describe(where, "its targets don't fit the model's output", seen, way_out))


def _is_one_hot(y: torch.Tensor) -> bool:
    return bool(((y == 0) | (y == 1)).all() and (y.long().sum(1) == 1).all())


def _fitted(rows: Rows, fit: Fit) -> Rows:
    if isinstance(rows, SampledRows):
        return rows.fitted(fit)
    return TensorRows(*fit(rows.x, rows.y)) if isinstance(rows, TensorRows) else rows


def _check_finite(where: str, task: Task, rows: Rows) -> None:
    counts = {"inputs": _n_not_finite(rows), "targets": int((~task.targets(rows).isfinite()).sum())}
    for what, n in counts.items():
        if n:
            way_out = "Take these rows out, or fill the gaps"
            raise StreamError(describe(where, f"its {what} are not all finite", f"{n} NaN or infinite values", way_out))


def _n_not_finite(rows: Rows) -> int:
    """Return how many values of the inputs are NaN or infinite."""
    if isinstance(rows, SampledRows):
        return rows.n_not_finite
    xs = [rows.x] if isinstance(rows, TensorRows) else [row["x"] for row in rows if isinstance(row["x"], torch.Tensor)]
    return sum(int((~x.isfinite()).sum()) for x in xs)


def _check_classes(where: str, y: torch.Tensor, output: torch.Size) -> None:
    wrong = y[(y < 0) | (y >= output[0])] if not y.is_floating_point() else y[:0]
    if len(wrong):
        way_out = f"The model's outputs are classes 0 to {output[0] - 1}; take rows without a class out"
        what = f"{len(wrong)} targets are no class of the model"
        raise StreamError(describe(where, what, sorted(set(wrong.tolist()))[:5], way_out))


def _seen(tensor: torch.Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"

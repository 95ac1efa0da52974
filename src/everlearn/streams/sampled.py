"""Rows of a user's dataset that are read when they are taken, so that a task needn't hold them all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Subset

from everlearn.types import Rows, Task, TensorRows

if TYPE_CHECKING:
    from everlearn.models.targets import Fit


class SampledRows(TensorRows):
    """Rows whose inputs lie in a dataset. Held are their targets `y`, and a digest of each.

    A row is read anew each time that it is taken: where the dataset augments it, it is another one. `x` reads all.

    Args:
        samples: (sample of a row) by its number.
        read: sample -> its input [...].
        like: an input, empty along a first dimension [0, ...]: shape and type of all.
        y: targets [n, ...].
        digests: 16 bytes a row, end to end, of the inputs' bytes.
        n_not_finite: NaN or infinite values among the inputs.
    """

    def __init__(
        self,
        samples: Sequence[Any],
        read: Callable[[Any], torch.Tensor],
        like: torch.Tensor,
        y: torch.Tensor,
        digests: bytes,
        n_not_finite: int,
    ):
        # the base is frozen, and would hold x
        vars(self).update(samples=samples, read=read, like=like, y=y, digests=digests, n_not_finite=n_not_finite)

    @property
    def x(self) -> torch.Tensor:
        """All inputs [n, ...]."""
        return self.select(range(len(self))).x

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        one = self.select([int(index)])
        return {"x": one.x[0], "y": one.y[0]}

    def __repr__(self) -> str:
        return f"SampledRows({len(self)} rows)"

    def inputs(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the rows at `indices`, int64 [n], in that order."""
        xs = [self.read(self.samples[i]).to(self.like.dtype) for i in indices.tolist()]
        return torch.stack(xs) if xs else self.like

    def select(self, indices: Sequence[int]) -> TensorRows:
        """Return the rows at `indices`, in that order, in memory."""
        picked = torch.as_tensor(indices, dtype=torch.long)
        return TensorRows(self.inputs(picked), self.y[picked])

    def subset(self, indices: Sequence[int]) -> "SampledRows":
        """Return the rows at `indices`, in that order, where they are."""
        digests = b"".join(self.digests[16 * i : 16 * i + 16] for i in indices)
        samples, y = Subset(self.samples, list(indices)), self.y[torch.as_tensor(indices, dtype=torch.long)]
        return SampledRows(samples, self.read, self.like, y, digests, self.n_not_finite)

    def each_digest(self) -> Iterator[bytes]:
        """Yield each row's digest."""
        return (self.digests[start : start + 16] for start in range(0, len(self.digests), 16))

    def fitted(self, fit: "Fit") -> "SampledRows":
        """Return the rows as `fit` makes them."""
        like, _ = fit(self.like, self.y[:0])
        _, y = fit(self.like, self.y)
        return SampledRows(self.samples, self.read, like, y, self.digests, self.n_not_finite)


def none_of(rows: Rows) -> Rows:
    """Return no rows, as these are: of their type and shape, without a hold on what they lie in."""
    nothing = rows[:0]
    return TensorRows(nothing.x.clone(), nothing.y.clone()) if isinstance(nothing, TensorRows) else nothing


def let_go(task: Task, *, rows: bool = True) -> Task:
    """Return a task whose data loader's samples and batches aren't held any longer; nor, with `rows`, what was trained
    on. One that isn't from a data loader stays as it is."""  # fmt: skip
    if task.loader is None:
        return task
    loader = replace(task.loader, samples=(), epochs=())
    return replace(task, loader=loader, train=none_of(task.train) if rows else task.train)

"""Tensors from the user's own data loaders: the rows that a loader draws, and the batches that it makes of them.

All epochs' batches are drawn beforehand, by the loader's own sampler: the rows that come up in them are the task's,
whichever sampler it is, and a step can be repeated. The rows themselves stay in the dataset.
"""

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate

from everlearn.errors import StreamError, describe
from everlearn.seeds import seed_for, seeded
from everlearn.streams.apart import bytes_of, digest_of_bytes
from everlearn.streams.sampled import SampledRows
from everlearn.types import Loader, Rows, TensorRows

Batch = tuple[torch.Tensor, torch.Tensor]


def read_loader(
    where: str, loader: Iterable[Any], n_epochs: int, *purpose: object, hold: bool = False
) -> tuple[Rows, Loader]:
    """Return the rows that a data loader draws in some epochs, in the order of its dataset, and their batches.

    Samplers without a generator of their own draw by the seed of `purpose`. Whatever is no DataLoader over a map-style
    dataset with batches (an IterableDataset, a list of batches) is read once; each epoch has these batches.

    Args:
        where: what the loader is called in errors.
        hold: whether rows are held in memory, as evaluation items are, so that they stay the same.

    Raises:
        StreamError: if it gives no batches, or batches that are no pairs (x, y) of tensors.

    Cost: each row is read once. Memory: 4 bytes a row and epoch for the batches, the targets, 16 bytes a row; the rows
    themselves where they are held, differ in shape, or are read once.
    """
    with seeded(seed_for(*purpose, where)):
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return _read_once(where, loader)
        if loader.batch_sampler is None:
            way_out = "Give it a batch_size or a batch_sampler"
            raise StreamError(describe(where, "makes no batches", "batch_size=None", way_out))
        epochs = [_joined([_numbers(where, rows) for rows in loader.batch_sampler]) for _ in range(n_epochs)]
        own = torch.cat([rows.unique() for rows, _ in epochs]).unique()
        if not len(own):
            way_out = "Give it at least one batch; drop_last drops what is shorter than batch_size"
            raise StreamError(describe(where, "is empty", f"{len(loader.dataset)} rows", way_out))
        if isinstance(loader.dataset, Sized) and not 0 <= own[0] <= own[-1] < len(loader.dataset):
            way_out = f"Let it draw numbers from 0 to {len(loader.dataset) - 1}"
            what = "its sampler draws rows that the dataset doesn't have"
            raise StreamError(describe(where, what, [int(own[0]), int(own[-1])], way_out))
        epochs = [(torch.searchsorted(own, rows).int(), sizes) for rows, sizes in epochs]
        samples = Subset(loader.dataset, own.tolist())
        return _rows(where, samples, loader.collate_fn, hold), Loader(samples, loader.collate_fn, epochs)


def _joined(batches: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an epoch's row numbers end to end, and how many each batch has."""
    sizes = torch.tensor([len(rows) for rows in batches], dtype=torch.int32)
    return torch.cat([torch.zeros(0, dtype=torch.int32), *batches]), sizes


def _numbers(where: str, batch: Iterable[Any]) -> torch.Tensor:
    """Return the row numbers of a batch."""
    try:
        return torch.tensor([int(row) for row in batch], dtype=torch.int32)
    except (TypeError, ValueError) as error:
        way_out = "Let its sampler draw whole numbers, and its batch_sampler lists of them"
        raise StreamError(describe(where, "its sampler draws no row numbers", f"{error}", way_out)) from error


def _rows(where: str, samples: Subset, collate: Callable[[list[Any]], Any], hold: bool) -> Rows:
    """Return the rows: tensors, in memory or where they are, or the samples, where these differ in shape."""
    data = samples.dataset
    if type(data) is TensorDataset and len(data.tensors) == 2 and collate is default_collate:
        if not hold and samples.indices == list(range(len(data))):
            return TensorRows(*data.tensors)  # the user's own
        return TensorRows(*(tensor[list(samples.indices)] for tensor in data.tensors))
    read = Alone(where, collate)
    first_x, first_y = read.pair(samples[0])
    xs = first_x.new_empty((len(samples) if hold else 0, *first_x.shape))
    ys = first_y.new_empty((len(samples), *first_y.shape))
    digests, n_not_finite = bytearray(), 0
    for i in range(len(samples)):
        x, y = read.pair(samples[i])
        if x.shape != first_x.shape or y.shape != first_y.shape:
            return _samples(where, samples, read)
        if (x.dtype, y.dtype) != (xs.dtype, ys.dtype):
            types = sorted({f"{one.dtype}" for one in (x, y, xs, ys)})
            raise StreamError(describe(where, "its rows differ in type", types, "Give the rows of a task one type"))
        ys[i] = y
        if hold:
            xs[i] = x
        else:
            digests += digest_of_bytes(bytes_of(x))
            n_not_finite += int((~x.isfinite()).sum())
    return TensorRows(xs, ys) if hold else SampledRows(samples, read, xs, ys, bytes(digests), n_not_finite)


@dataclass(frozen=True)
class Alone:
    """Reads one sample, through the loader's own collate_fn."""

    where: str
    collate: Callable[[list[Any]], Any]

    def __call__(self, sample: Any) -> torch.Tensor:
        """Return its input [...]."""
        return self.pair(sample)[0]

    def pair(self, sample: Any) -> Batch:
        """Return its input and its target."""
        x, y = _pair(self.where, self.collate([sample]))
        return x[0], y[0]


def _samples(where: str, samples: Subset, alone: Alone) -> Rows:
    """Return the samples as they are, for a collate_fn to put into batches."""
    read = [samples[i] for i in range(len(samples))]
    shapes = sorted({tuple(alone.pair(sample)[1].shape) for sample in read})
    if len(shapes) > 1:
        what = "the targets of its rows differ in shape"
        raise StreamError(describe(where, what, shapes[:4], "Give each row one target"))
    rows = [{"x": sample[0], "y": sample[1]} for sample in read if _is_plain_pair(sample)]
    if len(rows) < len(read):
        way_out = "Let the dataset give pairs (x, y) of tensors, lists, texts or numbers, or rows of one shape"
        what = "its rows differ in shape, and a sample is none that can be kept"
        raise StreamError(describe(where, what, type(read[0]).__name__, way_out))
    return rows


def _is_plain_pair(sample: Any) -> bool:
    kinds = torch.Tensor | list | str | int | float
    return isinstance(sample, tuple | list) and len(sample) == 2 and all(isinstance(part, kinds) for part in sample)


def _pair(where: str, batch: Any) -> Batch:
    """Return a batch as the pair that it must be."""
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        way_out = "Use a DataLoader over pairs (input tensor, target tensor)"
        raise StreamError(describe(where, "a batch is no pair (x, y)", type(batch).__name__, way_out))
    if not all(isinstance(part, torch.Tensor) for part in batch):
        kinds = tuple(type(part).__name__ for part in batch)
        raise StreamError(describe(where, "a batch is no pair of tensors", kinds, "Let collate_fn make tensors"))
    shapes = [list(part.shape) for part in batch]
    if not all(shapes) or shapes[0][0] != shapes[1][0]:
        what, way_out = "a batch has no target for each input", "Give batches (x [n, ...], y [n, ...])"
        raise StreamError(describe(where, what, shapes, way_out))
    return batch[0], batch[1]


def _read_once(where: str, loader: Iterable[Any]) -> tuple[Rows, Loader]:
    """Read batches into memory; all epochs have the same."""
    if not isinstance(loader, Iterable):
        way_out = "Give a DataLoader over the data, or batches (x, y)"
        raise StreamError(describe(where, "is no data loader", type(loader).__name__, way_out))
    batches = [_pair(where, batch) for batch in loader]
    if not batches:
        raise StreamError(describe(where, "is empty", type(loader).__name__, "Give it at least one batch"))
    shapes = sorted({(tuple(x.shape[1:]), tuple(y.shape[1:])) for x, y in batches})
    if len(shapes) > 1:
        way_out = "Use a DataLoader over a dataset with a length, whose batches may"
        raise StreamError(describe(where, "is read once, and its batches differ in shape", shapes[:3], way_out))
    rows = TensorRows(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))
    ends = list(accumulate(len(x) for x, _ in batches))
    numbers = [torch.arange(end - len(x), end, dtype=torch.int32) for end, (x, _) in zip(ends, batches, strict=True)]
    return rows, Loader(TensorDataset(rows.x, rows.y), default_collate, [_joined(numbers)])

"""Tensors from the user's own data loaders: the rows that a loader draws, and the batches that it makes of them.

All epochs' batches are drawn beforehand, by the loader's own sampler: the rows that come up in them are the task's,
whichever sampler it is, and a step can be repeated.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate

from everlearn.errors import StreamError, describe
from everlearn.seeds import seed_for, seeded
from everlearn.types import Loader, Rows, TensorRows

Batch = tuple[torch.Tensor, torch.Tensor]


def read_loader(where: str, loader: Iterable[Any], n_epochs: int, *purpose: object) -> tuple[Rows, Loader]:
    """Return the rows that a data loader draws in some epochs, in the order of its dataset, and their batches.

    Samplers without a generator of their own draw by the seed of `purpose`. Whatever is no DataLoader over a map-style
    dataset with batches (an IterableDataset, a list of batches) is read once; each epoch has these batches.

    Args:
        where: what the loader is called in errors.

    Raises:
        StreamError: if it gives no batches, or batches that are no pairs (x, y) of tensors.

    Cost: each row is read once. 4 bytes a row and epoch for the batches.
    """
    with seeded(seed_for(*purpose, where)):
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return _read_once(where, loader)
        if loader.batch_sampler is None:
            way_out = "Give it a batch_size or a batch_sampler"
            raise StreamError(describe(where, "makes no batches", "batch_size=None", way_out))
        drawn = [
            [torch.tensor(list(rows), dtype=torch.int64) for rows in loader.batch_sampler] for _ in range(n_epochs)
        ]
        every = [rows for epoch in drawn for rows in epoch]
        if not every:
            way_out = "Give it at least one batch; drop_last drops what is shorter than batch_size"
            raise StreamError(describe(where, "is empty", f"{len(loader.dataset)} rows", way_out))
        own = torch.cat(every).unique()
        epochs = [[torch.searchsorted(own, rows).int() for rows in epoch] for epoch in drawn]
        samples = Subset(loader.dataset, own.tolist())
        return _rows(where, samples, loader.collate_fn), Loader(samples, loader.collate_fn, epochs)


def _rows(where: str, samples: Subset, collate: Callable[[list[Any]], Any]) -> Rows:
    """Return the samples as tensors, or as they are where they differ in shape."""
    data = samples.dataset
    if type(data) is TensorDataset and len(data.tensors) == 2 and collate is default_collate:
        return TensorRows(*(tensor[list(samples.indices)] for tensor in data.tensors))
    read = [samples[i] for i in range(len(samples))]
    alone = [_pair(where, collate([sample])) for sample in read]
    xs, ys = ([pair[i][0] for pair in alone] for i in (0, 1))
    if len({y.shape for y in ys}) > 1:
        shapes = sorted({tuple(y.shape) for y in ys})[:4]
        raise StreamError(
            describe(where, "the targets of its rows differ in shape", shapes, "Give each row one target")
        )
    if len({x.shape for x in xs}) == 1:
        return TensorRows(torch.stack(xs), torch.stack(ys))
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
    return batch[0], batch[1]


def _read_once(where: str, loader: Iterable[Any]) -> tuple[Rows, Loader]:
    """Read batches into memory; all epochs have the same."""
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
    return rows, Loader(TensorDataset(rows.x, rows.y), default_collate, [numbers])

"""Rows of text out of the user's own data loaders: the samples that a loader draws, as the rows that they are."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from everlearn.seeds import seed_for, seeded
from everlearn.types import Row


def texts_of(where: str, loader: Any, *purpose: object) -> list[Row] | None:
    """Return the rows of text that a data loader draws in one pass, each once, in the order of its dataset.

    A sample is a row with texts or words among its columns, or a pair (text, label); or what the loader's collate_fn
    makes of one is a batch of these. Tensors among the columns become numbers.

    Args:
        where, purpose: what a sampler without a generator of its own is seeded by.

    Returns:
        None for a loader of something else: tensors, say, or batches that are tokens already.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or not loader.batch_sampler:
        return None
    if not isinstance(loader.dataset, Sized) or not len(loader.dataset):
        return None
    with seeded(seed_for(*purpose, where)):
        if _row(loader, 0) is None:
            return None
        drawn = sorted({int(number) for batch in loader.batch_sampler for number in batch})
        return [_row(loader, number) for number in drawn]


def _row(loader: DataLoader, number: int) -> Row | None:
    """Return a sample as a row of text, None where it is none."""
    found = loader.dataset[number]
    if loader.collate_fn is not default_collate:
        found = _first_of(loader.collate_fn([found]))
    if isinstance(found, tuple | list) and len(found) == 2:
        found = {"text": found[0], "label": found[1]}
    if not isinstance(found, Mapping) or not any(map(_is_text, found.values())):
        return None
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in found.items()}


def _first_of(batch: Any) -> Any:
    """Return the only sample of a batch: a list of samples, columns, or a pair of columns."""
    if isinstance(batch, Mapping):
        return {name: values[0] for name, values in batch.items()}
    if isinstance(batch, list | tuple) and len(batch) == 2 and not isinstance(batch[0], Mapping):
        return tuple(values[0] for values in batch)
    return batch[0] if isinstance(batch, Sequence) and len(batch) == 1 else batch


def _is_text(value: Any) -> bool:
    """Tell whether a value is a text, or a list of words or of turns."""
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and isinstance(value[0], str | Mapping))

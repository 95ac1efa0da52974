"""Encoded rows: token ids laid end to end in one array, and where in them targets stand or what the targets are."""

import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, overload

import numpy as np

from everlearn.streams.mapped import MAPPED_BYTES
from everlearn.types import IGNORED

CHUNK = 1000  # rows that go through a tokenizer together
Span = tuple[int, int]  # places [start, end)
Encoded = tuple[int, list[int], list[Span]]  # row number, token ids, where the targets stand in them


@dataclass(frozen=True, eq=False)
class Ragged(Sequence):
    """Rows of whole numbers of unlike length, end to end: row i is `values[offsets[i] : offsets[i + 1]]`.

    values: [n_values]; offsets: [n_rows + 1], int64.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """How many numbers each row has [n_rows], int64."""
        return np.diff(self.offsets)


class RaggedWriter:
    """Takes rows of numbers, some at a time, and lays them end to end.

    They are held in memory up to `mapped_bytes`, then in a file of the system's temporary folder (TMPDIR) that has no
    name and so is gone with the process, however that ends.
    """

    def __init__(self, dtype: type[np.integer], mapped_bytes: int = MAPPED_BYTES):
        self._dtype = np.dtype(dtype)
        self._mapped_bytes = mapped_bytes
        self._pieces: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._n_bytes = 0
        self._file: Any = None

    def add(self, rows: Sequence[Sequence[int]]) -> None:
        """Add rows behind those that are there.

        Raises:
            OSError: if the disk is full.
        """
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        piece = np.fromiter(chain.from_iterable(rows), self._dtype, int(lengths.sum()))
        self._lengths.append(lengths)
        self._pieces.append(piece)
        self._n_bytes += piece.nbytes
        if self._n_bytes > self._mapped_bytes:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="everlearn-")  # noqa: SIM115
            for held in self._pieces:
                self._file.write(held.data)
            self._pieces = []

    def close(self) -> Ragged:
        """Return the rows."""
        offsets = np.concatenate([np.zeros(1, np.int64), *self._lengths]).cumsum()
        if self._file is None:
            values = np.concatenate([np.zeros(0, self._dtype), *self._pieces])
        else:
            with self._file:
                self._file.flush()
                values = np.memmap(self._file, self._dtype, mode="r")
        self._pieces, self._lengths = [], []
        return Ragged(values, offsets)


class _Examples(Sequence):
    """What `take` gives as arrays, one by one as lists of int."""

    @abstractmethod
    def take(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Return the examples at `indices`: arrays, and plain numbers."""

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        (example,) = self.take([range(len(self))[index]])
        return {name: value if isinstance(value, int) else value.tolist() for name, value in example.items()}


@dataclass(frozen=True, eq=False)
class TokenFeatures(_Examples):
    """Encoded examples, at about two bytes a token where the vocabulary is below 65,536, else four.

    Attributes:
        ids: the token ids of each example.
        spans: where its targets stand in it: start, end, start, end …
        rows: the number of the row that it is (a part) of [n].
        sizes: tokens of its last answer and of what stands before, before anything was cut: (before, answer) [n, 2].
    """

    ids: Ragged
    spans: Ragged
    rows: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Return the examples at `indices`, {"input_ids", "labels", "row"}; a label that is no target is IGNORED."""
        taken = []
        for index in indices:
            ids, spans = self.ids[index], self.spans[index].tolist()
            labels = np.full(len(ids), IGNORED, np.int32)
            for start, end in zip(spans[::2], spans[1::2], strict=True):
                labels[start:end] = ids[start:end]
            taken.append({"input_ids": ids, "labels": labels, "row": int(self.rows[index])})
        return taken

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens each example has [n], int64."""
        return self.ids.lengths


class TokenWriter:
    """Puts examples together as `TokenFeatures`. dtype: of the token ids."""

    def __init__(self, dtype: type[np.integer]):
        self._ids, self._spans = RaggedWriter(dtype), RaggedWriter(np.int32)
        self._rows: list[np.ndarray] = [np.zeros(0, np.int64)]
        self._sizes: list[np.ndarray] = [np.zeros((0, 2), np.int32)]

    def add(self, examples: Sequence[Encoded], sizes: Sequence[tuple[int, int]]) -> None:
        """Add examples, and the sizes that they had before they were cut."""
        self._rows.append(np.fromiter((row for row, _, _ in examples), np.int64, len(examples)))
        self._sizes.append(np.array(sizes, np.int32).reshape(-1, 2))
        self._ids.add([ids for _, ids, _ in examples])
        self._spans.add([list(chain.from_iterable(spans)) for _, _, spans in examples])

    def close(self) -> TokenFeatures:
        """Return the examples."""
        rows, sizes = np.concatenate(self._rows), np.concatenate(self._sizes)
        return TokenFeatures(self._ids.close(), self._spans.close(), rows, sizes)


@dataclass(frozen=True, eq=False)
class LabelledFeatures(_Examples):
    """Encoded rows of classifiers and taggers, at about three bytes a token and, for tags, two more.

    Attributes:
        columns: each row's inputs and `labels`, for tags also `read`. The attention mask is 1 everywhere and left out.
        task: the number of their task's head.
    """

    columns: dict[str, Ragged]
    task: int

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def take(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Return the rows at `indices`, as arrays."""
        return [{**{name: column[i] for name, column in self.columns.items()}, "task": self.task} for i in indices]

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens each row has [n], int64."""
        return self.columns["input_ids"].lengths


def id_type(tokenizer: Any) -> type[np.integer]:
    """Return the smallest type of numbers that a tokenizer's ids fit into."""
    return np.uint16 if max(tokenizer.get_vocab().values()) < 2**16 else np.int32

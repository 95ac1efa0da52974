"""Memories too large to be copied into every checkpoint: files named by their hash, read where they lie."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import torch
from safetensors.torch import load_file, save_file

from everlearn.errors import StateError, StreamError, describe
from everlearn.state import FILE, named_file, save_named
from everlearn.streams.labels import BadRow
from everlearn.streams.values import storable
from everlearn.types import Row, Rows, TensorRows

LARGE_BYTES = 64 * 2**20  # from here on, a checkpoint's copy of the rows would take a second or more
_CHUNK = 1000  # rows in a record batch
_TENSOR = "__tensor__"  # key of a tensor's JSON
_SCHEMA = pyarrow.schema([("row", pyarrow.string())])


@dataclass(frozen=True)
class DiskRows(Sequence):
    """Rows in an Arrow file mapped into memory: only those that are read take room.

    The file has one column, `row`: JSON, so that rows come back as they were, whichever keys and types they have
    (tensors too).
    """

    table: datasets.Dataset

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Row:
        return _row_of(self.table[index]["row"])

    def __iter__(self) -> Iterator[Row]:
        for chunk in self.table.iter(_CHUNK):
            yield from map(_row_of, chunk["row"])

    def select(self, indices: Sequence[int]) -> list[Row]:
        """Return the rows at `indices`, in that order."""
        return [_row_of(text) for text in self.table[list(indices)]["row"]]


def stored_row(row: Row) -> dict[str, Any]:
    """Return a row as it is stored: as JSON holds it, and tensors.

    Raises:
        StreamError: if it has a value that can't be.
    """
    try:
        return {
            name: value if isinstance(value, torch.Tensor) else storable(value, name) for name, value in row.items()
        }
    except BadRow as reason:
        way_out = "Make it a text or a number where the rows are made, or leave it out of them"
        raise StreamError(describe("memory", f"a row can't be kept: {reason}", sorted(row), way_out)) from reason


def text_of(row: Row) -> str:
    """Return a row as the text that is stored."""
    return json.dumps(stored_row(row), ensure_ascii=False, separators=(",", ":"), default=_of_tensor)


def _row_of(text: str) -> Row:
    return json.loads(text, object_hook=_as_tensor)


def _of_tensor(value: Any) -> dict[str, Any]:
    """Return a tensor, such as a sample of a plain module has, as JSON; a float comes back as it was."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{type(value).__name__} is no JSON")
    return {_TENSOR: str(value.dtype).removeprefix("torch."), "values": value.tolist()}


def _as_tensor(value: dict[str, Any]) -> Any:
    return torch.tensor(value["values"], dtype=vars(torch)[value[_TENSOR]]) if _TENSOR in value else value


def write_rows(rows: TensorRows | Iterable[Row], n_rows: int, folder: Path) -> dict[str, Any]:
    """Write rows into a file below `folder` and return what stands for them in a state.

    Equal rows make equal files, so several processes may write them at once.

    Raises:
        StateError: if the disk is full or the folder can't be written.
    """
    if isinstance(rows, TensorRows):
        x, y = rows.x.contiguous(), rows.y.contiguous()
        tensors = {"x": x, "y": y.clone() if y.data_ptr() == x.data_ptr() else y}  # of an autoencoder's rows, say
        name = save_named(folder, ".safetensors", lambda path: save_file(tensors, path))
    else:
        name = save_named(folder, ".arrow", lambda path: _write_arrow(rows, path))
    return {FILE: name, "n_rows": n_rows, "n_bytes": (folder / name).stat().st_size}


def open_rows(stored: dict[str, Any], folder: Path | None) -> Rows:
    """Return the rows that `write_rows` wrote, mapped into memory.

    Raises:
        StateError: if the file is missing or altered.
    Cost: reads the file once, to check it.
    """
    if folder is None:
        way_out = "Open the run, or the home, that the state is from"
        raise StateError(describe("memory", "lies on disk, but its folder isn't known", stored[FILE], way_out))
    path = named_file(folder, stored[FILE])
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        return TensorRows(tensors["x"], tensors["y"])
    return DiskRows(datasets.Dataset.from_file(str(path)))


def _write_arrow(rows: Iterable[Row], path: Path) -> None:
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, _SCHEMA) as writer:
        texts = map(text_of, rows)
        while chunk := list(islice(texts, _CHUNK)):
            writer.write_batch(pyarrow.record_batch([pyarrow.array(chunk, pyarrow.string())], schema=_SCHEMA))

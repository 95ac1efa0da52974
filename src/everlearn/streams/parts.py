"""One part of a task (train, validation, evaluation): its checked rows as Arrow chunks, the bad ones set aside."""

import hashlib
import json
import warnings
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import InMemoryTable

from everlearn.errors import StreamError, describe
from everlearn.streams.checking import Rules, answer_of, check_row, digest_of, loose_digest_of
from everlearn.streams.labels import BadRow
from everlearn.streams.mapped import MAPPED_BYTES, mapped
from everlearn.streams.reading import Source
from everlearn.streams.rows import NestedRows, encoded
from everlearn.types import IGNORED, Row

_CHUNK = 10_000  # rows held as Python objects at a time; Arrow holds the rest at about the size of their text
_SHOWN = 5
CHAT_COLUMNS = ("messages", "tools", "prompt")  # which may be objects


@dataclass
class Part:
    """Rows that passed the check, with the number (line or row) and the content digest of each.

    chunks: the rows as tables, on disk from `MAPPED_BYTES` on.
    loose: the first eight bytes of each row's loose digest, as a number. answers: a hash of each row's answer.
    nested: the columns that `chunks` hold as JSON text.
    """

    source: Source
    chunks: list[pa.Table] = field(default_factory=list)
    numbers: array = field(default_factory=lambda: array("q"))
    digests: list[bytes] = field(default_factory=list)
    loose: array = field(default_factory=lambda: array("Q"))
    answers: array = field(default_factory=lambda: array("Q"))
    nested: set[str] = field(default_factory=set)
    n_bytes: int = 0

    def note(self, number: int, row: Row) -> None:
        """Note where a row stands and what names it."""
        self.numbers.append(number)
        self.digests.append(digest_of(row))
        self.loose.append(_number_of(loose_digest_of(row)))
        answer = json.dumps(answer_of(row), ensure_ascii=False)
        self.answers.append(_number_of(hashlib.blake2b(answer.encode(), digest_size=8).digest()))

    def place(self, index: int) -> str:
        """Return where row `index` stands, such as `train.jsonl line 3`."""
        return f"{self.source.name} {self.source.unit} {self.numbers[index]}"


@dataclass
class BadRows:
    """Counts the rows that can't be used and keeps the reasons of the first five."""

    where: str
    shown: list[str] = field(default_factory=list)
    n_bad: int = 0
    n_rows: int = 0

    def add(self, source: Source, number: int, reason: str) -> None:
        """Note one bad row."""
        self.n_bad += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(f"{source.name} {source.unit} {number}: {reason}")

    def settle(self, on_bad_row: str) -> None:
        """Do nothing if all rows were good, else raise, or warn where bad rows are to be skipped.

        Raises:
            StreamError: with the first five bad rows and their count.
        """
        if not self.n_bad:
            return
        more = f"; and {self.n_bad - len(self.shown)} more" if self.n_bad > len(self.shown) else ""
        listed = "; ".join(self.shown) + more
        if on_bad_row == "skip":
            message = f"{self.where}: skipped {self.n_bad} of {self.n_rows} rows: {listed}"
            warnings.warn(message, UserWarning, stacklevel=2)
            return
        got = f"{self.n_bad} bad of {self.n_rows} rows"
        way_out = "Mend the rows, or set on_bad_row: skip to leave them out"
        raise StreamError(describe(self.where, f"bad rows: {listed}", got, way_out))


def read_part(source: Source, rules: Rules, bad: BadRows) -> Part:
    """Return the good rows of `source`; the others go to `bad`.

    Raises:
        StreamError: if the source holds no row at all, or columns that are no table.
    """
    part = Part(source)
    may_nest = (*CHAT_COLUMNS, *rules.extra_columns)
    rows: list[dict] = []
    n_before = bad.n_rows
    for number, row in source.read():
        bad.n_rows += 1
        if isinstance(row, str):
            bad.add(source, number, row)
            continue
        try:
            checked = check_row(row, rules)
        except BadRow as reason:
            bad.add(source, number, str(reason))
            continue
        part.note(number, checked)
        rows.append(checked)
        if len(rows) == _CHUNK:
            _add_chunk(part, rows, may_nest)
            rows = []
    if bad.n_rows == n_before:
        raise StreamError(describe(bad.where, "there is no row", source.name, "Give at least one row"))
    if rows:
        _add_chunk(part, rows, may_nest)
    return part


def _add_chunk(part: Part, rows: list[dict], may_nest: Iterable[str]) -> None:
    """Add a table of rows; a column that holds objects or lists in any row is JSON text in all of them."""
    found = {name for name in may_nest if any(isinstance(row.get(name), dict | list | tuple) for row in rows)}
    if found - part.nested:
        part.chunks = [_as_json(chunk, found - part.nested) for chunk in part.chunks]
    part.nested |= found
    kept = [{name: encoded(item) if name in part.nested else item for name, item in row.items()} for row in rows]
    try:
        chunk = pa.Table.from_pylist(kept)
    except pa.ArrowException as error:
        way_out = "Give each column one type, or leave it out of extra_columns"
        what = f"columns mix types ({error})"
        raise StreamError(describe(part.source.name, what, sorted(rows[0]), way_out)) from error
    if part.n_bytes < MAPPED_BYTES <= part.n_bytes + chunk.nbytes:
        part.chunks = [mapped(before) for before in part.chunks]
    part.n_bytes += chunk.nbytes
    part.chunks.append(mapped(chunk) if part.n_bytes >= MAPPED_BYTES else chunk)


def _as_json(chunk: pa.Table, names: Iterable[str]) -> pa.Table:
    for name in names:
        values = pa.array([encoded(value) for value in chunk.column(name).to_pylist()], pa.string())
        chunk = chunk.set_column(chunk.column_names.index(name), name, values)
    return chunk


def to_rows(
    part: Part, new_numbers: Sequence[int], indices: Sequence[int] | None = None
) -> datasets.Dataset | NestedRows:
    """Return the part's rows, or those at `indices`, with label `i` turned into `new_numbers[i]`.

    Columns that are null in every row are left out.
    """
    chunks = [_renumber(chunk, np.asarray(new_numbers, dtype=np.int64)) for chunk in part.chunks]
    try:
        table = pa.concat_tables(chunks, promote_options="permissive")
    except pa.ArrowException as error:
        way_out = "Give each column one type, or leave it out of extra_columns"
        raise StreamError(describe(part.source.name, "columns mix types", str(error), way_out)) from error
    empty = [name for name in table.column_names if table.column(name).null_count == len(table)]
    table = table.drop_columns(empty)
    if indices is not None:
        table = _chosen(table, np.asarray(indices, dtype=np.int64))
    # without a fingerprint, datasets would pickle the whole table to find one
    dataset = datasets.Dataset(InMemoryTable(table), fingerprint=_fingerprint(table))
    return NestedRows(dataset, frozenset(part.nested)) if part.nested else dataset


def _chosen(table: pa.Table, indices: np.ndarray) -> pa.Table:
    """Return the rows at `indices`, taken from one stretch of a large table after another: `take` copies what it reads.

    They come to lie on disk if they are that many.
    """
    if table.nbytes < MAPPED_BYTES:
        return table.take(pa.array(indices))
    on_disk = table.nbytes * len(indices) / len(table) >= MAPPED_BYTES
    pieces = []
    for near in np.split(indices, np.flatnonzero(np.diff(indices // _CHUNK)) + 1):
        start = int(near[0]) // _CHUNK * _CHUNK
        piece = table.slice(start, _CHUNK).take(pa.array(near - start))
        pieces.append(mapped(piece) if on_disk else piece)
    return pa.concat_tables(pieces)


def _fingerprint(table: pa.Table) -> str:
    content = hashlib.blake2b(str(table.schema).encode(), digest_size=8)
    buffers = (buffer for batch in table.to_batches() for column in batch.columns for buffer in column.buffers())
    for buffer in buffers:
        if buffer is not None:
            content.update(buffer)
    return content.hexdigest()


def _renumber(chunk: pa.Table, new_numbers: np.ndarray) -> pa.Table:
    if "label" in chunk.column_names:
        values = pa.array(new_numbers[chunk.column("label").to_numpy()])
        chunk = chunk.set_column(chunk.column_names.index("label"), "label", values)
    for name in ("labels", "tags"):
        if name in chunk.column_names:
            lists = chunk.column(name).combine_chunks()
            numbers = lists.flatten().cast(pa.int64()).to_numpy()
            values = pa.array(np.where(numbers == IGNORED, IGNORED, new_numbers[np.maximum(numbers, 0)]), pa.int64())
            renumbered = pa.ListArray.from_arrays(lists.offsets, values)
            chunk = chunk.set_column(chunk.column_names.index(name), name, renumbered)
    return chunk


def check_disjoint(where: str, parts: dict[str, Part]) -> None:
    """Check that no two parts share a row's content.

    Raises:
        StreamError: with the number of shared rows and where the first one stands in both.
    """
    for first, second in combinations(parts, 2):
        seen = set(parts[first].digests)
        shared = [index for index, digest in enumerate(parts[second].digests) if digest in seen]
        if shared:
            here = parts[first].place(parts[first].digests.index(parts[second].digests[shared[0]]))
            there = parts[second].place(shared[0])
            what = f"{first} and {second} share rows, the first is {here} and {there}"
            way_out = "Take them out of one of the two, or set allow_overlap: true"
            raise StreamError(describe(where, what, f"{len(shared)} of {len(parts[second].digests)} rows", way_out))


def _number_of(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")

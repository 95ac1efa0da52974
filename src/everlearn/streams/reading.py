"""Rows out of JSON Lines, CSV and Parquet files and out of memory, one at a time, each with its line or row number."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from everlearn.errors import StreamError, describe

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
Data = str | Path | Sequence[dict[str, Any]] | datasets.Dataset  # what users give: a file, or rows in memory
Numbered = Iterator[tuple[int, dict[str, Any] | str]]  # a row's number (from 1) with the row, or why it can't be read

_FIELD_LIMIT = 2**31 - 1  # characters in a CSV field; the csv module's own 131,072 cuts long documents off
_BATCH = 4096  # Parquet rows in memory at a time


@dataclass(frozen=True)
class Source:
    """Rows that can be read, again and again, without holding them all in memory.

    `untyped` says that every value is text (CSV), so that "3" may be a number. `padded` says that nested objects have
    all keys of the others, null where they have none of their own (Arrow). `labels` are the label names that the data
    itself declares, such as in a Parquet file's schema metadata.
    """

    name: str
    unit: str
    read: Callable[[], Numbered]
    untyped: bool = False
    padded: bool = False
    labels: tuple[str, ...] = ()


def open_source(data: Data, where: str, role: str) -> Source:
    """Return the source of a file's rows, or of rows in memory.

    Args:
        data: path of a .jsonl, .ndjson, .csv, .tsv or .parquet file, a list of dicts (or another sequence of rows), or
            a `datasets.Dataset`.
        where: whose data it is, such as `task 'billing'`; begins error messages.
        role: train, validation or evaluation; names rows in memory.

    Raises:
        StreamError: if the file is missing, empty, of another type, or not what its name says.
    """
    where_file = f"{where}, {role}"
    match data:
        case str() | Path():
            return _open_file(Path(data).expanduser(), where_file)
        case datasets.Dataset():
            labels = _declared(data.features)
            rows = data.with_format(None)
            return Source(role, "row", lambda: enumerate(rows, start=1), padded=True, labels=labels)
        case Sequence():
            return Source(role, "row", lambda: enumerate((as_row(row) for row in data), start=1))
    way_out = "Pass a path, a list of dicts or a datasets.Dataset"
    raise StreamError(describe(where_file, "is no data that can be read", type(data).__name__, way_out))


def _open_file(path: Path, where: str) -> Source:
    name = str(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        way_out = f"Known: {', '.join(SUFFIXES)}; JSON goes one object a line into a .jsonl file"
        raise StreamError(describe(where, "the type of the file is unknown", name, way_out))
    try:
        size_bytes = path.stat().st_size
        path.open("rb").close()
    except OSError as error:
        raise StreamError(
            describe(where, f"the file can't be opened ({error.strerror})", name, "Check the path")
        ) from error
    if size_bytes == 0:
        raise StreamError(describe(where, "the file is empty", name, "Give a file with at least one row"))
    if suffix == ".parquet":
        labels = _parquet_labels(path, where)
        return Source(name, "row", lambda: _read_parquet(path, where), padded=True, labels=labels)
    if suffix in (".csv", ".tsv"):
        return Source(name, "line", lambda: _read_csv(path, where), untyped=True)
    return Source(name, "line", lambda: _read_jsonl(path))


def as_row(value: object) -> dict[str, Any] | str:
    """Return `value` if it is a row, else the reason why not."""
    if isinstance(value, dict):
        return value
    return f"{type(value).__name__}, not an object with columns"


def _read_jsonl(path: Path) -> Numbered:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, parse_line(line, is_first=number == 1)


def parse_line(line: bytes, *, is_first: bool) -> dict[str, Any] | str:
    """Return the row in a line of JSON, or the reason why there is none. The first line may begin with a BOM."""
    try:
        return as_row(json.loads(line.decode("utf-8-sig" if is_first else "utf-8")))
    except UnicodeDecodeError as error:
        return _not_utf8(error)
    except json.JSONDecodeError as error:
        return f"invalid JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"invalid JSON: {error}"


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at position {error.start})"


def _read_csv(path: Path, where: str) -> Numbered:
    csv.field_size_limit(_FIELD_LIMIT)
    # surrogateescape keeps bytes that are not UTF-8, so that only their own row is bad
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        header = _csv_header(reader, path, where)
        while True:
            first_line = reader.line_num + 1  # a quoted field may hold line breaks: a row is named by its first line
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield first_line, f"invalid CSV: {error}"
                continue
            if not fields:
                continue
            if len(fields) != len(header):
                yield first_line, f"{len(fields)} fields where the header has {len(header)}"
            elif not _encodable("".join(fields)):
                yield first_line, "not UTF-8"
            else:
                yield first_line, dict(zip(header, fields, strict=True))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_header(reader: Iterator[list[str]], path: Path, where: str) -> list[str]:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        way_out = "Check the quotes in line 1"
        raise StreamError(describe(where, f"the header is invalid CSV ({error})", str(path), way_out)) from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise StreamError(describe(where, f"{path}: the header names a column twice", twice, "Rename one of them"))
    return header


def _read_parquet(path: Path, where: str) -> Numbered:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in _batch_rows(batch):
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, where, error) from error


def _batch_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(len(batch)):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield _not_utf8(error)


def _unreadable(path: Path, where: str, error: Exception) -> StreamError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    way_out = "The file is damaged or cut off, or no Parquet; write it again"
    return StreamError(describe(where, f"the Parquet file can't be read ({reason})", str(path), way_out))


def _parquet_labels(path: Path, where: str) -> tuple[str, ...]:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, where, error) from error
    metadata = schema.metadata or {}
    declared = metadata.get(b"labels")
    if declared is None:  # files that `datasets` writes name the classes in their own way
        return _declared(datasets.Features.from_arrow_schema(schema)) if b"huggingface" in metadata else ()
    try:
        labels = json.loads(declared)
    except ValueError:
        labels = None
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        way_out = "Write a JSON list of label names there"
        raise StreamError(describe(where, f"{path}: the schema's 'labels' is no JSON list of names", declared, way_out))
    return tuple(labels)


def _declared(features: datasets.Features) -> tuple[str, ...]:
    """Return the label names of a `ClassLabel` column `label`, or of a list of them in `labels` or `tags`."""
    for column in ("label", "labels", "tags"):
        feature = features.get(column)
        if isinstance(feature, datasets.List):
            feature = feature.feature
        if isinstance(feature, datasets.ClassLabel):
            return tuple(feature.names)
    return ()

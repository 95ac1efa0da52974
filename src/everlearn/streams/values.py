"""Values of extra columns as JSON holds them: rows are stored and read again, and must come back as they were used."""

import base64
import datetime
import math
from collections.abc import Mapping, Set
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np

from everlearn.streams.labels import BadRow


def storable(value: Any, name: str, changes: set[str] | None = None) -> Any:
    """Return a value as JSON holds it, and beside it in `changes` what was made of what.

    Dates and times become ISO 8601 texts; durations, decimal numbers and UUIDs texts; bytes Base64 texts; numbers that
    are not finite, and times that are none, null; tuples, sets and arrays lists.

    Raises:
        BadRow: if it can't be stored.
    """
    changes = set() if changes is None else changes
    match value:
        case None | bool() | int() | str():
            return value
        case np.generic():
            return storable(value.item(), name, changes)
        case np.ndarray() | list() | tuple():
            return [storable(item, name, changes) for item in value]
        case Set():
            return sorted((storable(item, name, changes) for item in value), key=str)
        case Mapping():
            return {str(key): storable(item, name, changes) for key, item in value.items()}
    return _single(value, name, changes)


def _single(value: Any, name: str, changes: set[str]) -> float | str | None:
    match value:
        case float() | Decimal() if not math.isfinite(value):
            changes.add("numbers that are not finite as null")
            return None
        case float():
            return float(value)
        case datetime.datetime() | datetime.timedelta() if value != value:  # pandas' NaT
            return None
        case datetime.datetime() | datetime.date() | datetime.time():
            changes.add("dates and times as ISO 8601 text")
            return value.isoformat()
        case datetime.timedelta() | Decimal() | UUID():
            changes.add(f"{type(value).__name__} as text")
            return str(value)
        case bytes() | bytearray() | memoryview():
            changes.add("bytes as Base64 text")
            return base64.b64encode(value).decode("ascii")
    raise BadRow(f"{name} holds a value that can't be stored: {type(value).__name__}")


def notes_on(where: str, changes: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Return a sentence for each column of which values were changed."""
    return tuple(
        f"{where}: column {name!r} keeps {', '.join(sorted(own))}: rows are stored as JSON"
        for name, own in changes.items()
        if own
    )

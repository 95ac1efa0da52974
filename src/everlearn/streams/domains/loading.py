"""One task of a named stream out of its rows, as its table says."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

import datasets

from everlearn.errors import StreamError, describe
from everlearn.streams.domains.table import Entry
from everlearn.streams.loading import TaskOptions, build_task
from everlearn.streams.reading import Data, open_source
from everlearn.types import Row, Task


def load_entry(name: str, entry: Entry, data: Mapping[str, Data], on_bad_row: str, validation_fraction: float) -> Task:
    """Return the task `name` of its files or rows by role; its parts may share rows yet.

    Raises:
        StreamError: if rows lack columns, are bad, or none is left.
    """
    where = f"task {name!r}"
    rows = open_source(data["train"], where, "train").read()
    first = next((row for _, row in rows if isinstance(row, Mapping)), {})
    columns = {ours: place for ours, places in entry.columns.items() if (place := _first_there(places, first))}
    if isinstance(data["train"], datasets.Dataset):
        data = {role: _renamed(part, columns) for role, part in data.items()}
        columns = {ours: place if "{" in place else ours for ours, place in columns.items()}
    declared = open_source(data["train"], where, "train").labels
    if entry.makes_rows(columns):
        names = declared or entry.labels
        data = {role: _made(where, role, part, entry, columns, names) for role, part in data.items()}
        columns = {}
    options = TaskOptions(
        columns=columns,
        labels=list(_tags_of(entry.types) or declared or entry.labels),
        metrics=list(entry.metrics),
        on_bad_row=on_bad_row,
        validation_fraction=validation_fraction,
        allow_overlap=True,  # what parts share is taken out of the training rows, over all tasks of the stream
    )
    return build_task(name, data["train"], data.get("evaluation"), data.get("validation"), options)


def _first_there(places: Sequence[str], row: Row) -> str | None:
    """Return the first of some columns or templates that a row can fill."""
    for place in places:
        fields = [field for _, field, _, _ in Formatter().parse(place) if field] if "{" in place else [place]
        if all(field in row for field in fields):
            return place
    return None


def _renamed(dataset: datasets.Dataset, columns: Mapping[str, str]) -> datasets.Dataset:
    """Return a data set of the hub with our names: those of its labels are found by them."""
    renames = {place: ours for ours, place in columns.items() if ours != place and "{" not in place}
    in_the_way = [ours for ours in renames.values() if ours in dataset.column_names]
    return dataset.remove_columns(in_the_way).rename_columns(renames)


def _made(
    where: str, role: str, data: Data, entry: Entry, columns: Mapping[str, str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a task's rows among others, with our columns. names: of labels or tags that are numbers."""
    source = open_source(data, where, role)
    made = []
    for number, row in source.read():
        if isinstance(row, str):
            what = f"{source.name} {source.unit} {number} can't be read"
            raise StreamError(describe(where, what, row, "Mend the row or take it out"))
        if any(str(row.get(column)) != value for column, value in entry.where.items()):
            continue
        try:
            made.append(row | _ours(row, entry, columns, names))
        except KeyError:  # the check of rows tells what it lacks
            made.append(row)
    return made


def _ours(row: Row, entry: Entry, columns: Mapping[str, str], names: Sequence[str]) -> dict[str, Any]:
    """Return what a row has in our columns: templates filled, labels and entity types by their names here."""
    ours = {name: place.format_map(row) if "{" in place else row[place] for name, place in columns.items()}
    if "label" in columns:
        ours["label"] = entry.values.get(str(ours["label"]), ours["label"])
    if entry.types:
        ours["tags"] = [_typed(tag, names, entry.types) for tag in (row | ours)["tags"]]
    return ours


def _typed(tag: str | int, names: Sequence[str], types: Mapping[str, str]) -> str | int:
    """Return a tag with the entity's type by ours, O where it has none; a number without a name as it is."""
    if not isinstance(tag, str):
        if not 0 <= tag < len(names):
            return tag
        tag = names[tag]
    return f"{tag[:2]}{types[tag[2:]]}" if tag[2:] in types else "O"


def _tags_of(types: Mapping[str, str]) -> tuple[str, ...]:
    return ("O", *(f"{mark}-{ours}" for ours in dict.fromkeys(types.values()) for mark in "BI")) if types else ()

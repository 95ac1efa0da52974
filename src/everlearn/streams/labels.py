"""Labels as numbers: the names that a task declares, or those that its rows use, in a fixed order."""

import re
from collections.abc import Sequence
from dataclasses import replace

from everlearn.errors import StreamError, describe, nearest
from everlearn.types import Row, Rows, Task


class BadRow(Exception):
    """One row can't be used; the message is the reason. Caught by the loader, which adds file and line."""


class LabelBook:
    """Gives each label a number while rows are read.

    With declared names a label is a name or an index into them. Without, labels are numbered as they come, and `order`
    tells at the end where each belongs: by value if all are whole numbers, else by name.
    """

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.declared = tuple(labels)
        self._numbers = {label: number for number, label in enumerate(labels)}
        self._names: dict[int, str] = {}  # a row's label -> its label_name
        self._types: set[type] = set()
        self._n_unnamed = 0

    def number(self, label: str | int, *, untyped: bool = False, name: str | None = None) -> int:
        """Return the number of `label`.

        Args:
            label: a name or a whole number.
            untyped: the value comes from a file whose values are all text, so that "3" may mean 3.
            name: the label in words, where the row tells it.

        Raises:
            BadRow: if the label is none of the declared ones, or contradicts `name`.
        """
        if self.declared:
            return self._declared_number(label, untyped, name)
        self._note_name(label, untyped, name)
        if not untyped:
            self._types.add(type(label))
        return self._numbers.setdefault(str(label), len(self._numbers))

    def order(self, where: str) -> tuple[tuple[str, ...], list[int]]:
        """Return the label names in their final order, and for each number given so far its final number.

        Raises:
            StreamError: if some labels are whole numbers and others are names.
        """
        if self.declared:
            return self.declared, list(range(len(self.declared)))
        if len(self._types) > 1:
            shown = sorted(self._numbers)[:6]
            way_out = "Use names or numbers throughout, or give 'labels'"
            raise StreamError(describe(where, "labels are names in some rows and numbers in others", shown, way_out))
        keys = list(self._numbers)
        whole = all(_is_whole(key) for key in keys)
        ordered = sorted(keys, key=lambda key: (int(key), key)) if whole else sorted(keys)
        place = {key: index for index, key in enumerate(ordered)}
        named = whole and not self._n_unnamed and len({self._names.get(int(key)) for key in ordered}) == len(ordered)
        names = tuple(self._names[int(key)] for key in ordered) if named else tuple(ordered)
        return names, [place[key] for key in keys]

    def _declared_number(self, label: str | int, untyped: bool, name: str | None) -> int:
        if isinstance(label, str) and label in self._numbers:
            number = self._numbers[label]
        elif isinstance(label, str) and not (untyped and _is_whole(label)):
            raise BadRow(f"unknown label {label!r}. {nearest(label, self.declared)}".rstrip())
        else:
            number = int(label)
        if not 0 <= number < len(self.declared):
            raise BadRow(f"unknown label {label!r}: the labels are numbered 0 to {len(self.declared) - 1}")
        if name is not None and isinstance(label, int) and name != self.declared[number]:
            raise BadRow(f"label {label} is {self.declared[number]!r}, but label_name says {name!r}")
        return number

    def _note_name(self, label: str | int, untyped: bool, name: str | None) -> None:
        if isinstance(label, str) and not (untyped and _is_whole(label)):
            return
        if name is None:
            self._n_unnamed += 1
            return
        known = self._names.setdefault(int(label), name)
        if known != name:
            raise BadRow(f"label {label} was {known!r} before, but label_name says {name!r}")


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None


def with_labels(task: Task, known: Sequence[str]) -> Task:
    """Return a task with its labels numbered as they were when it was learned before.

    Raises:
        StreamError: if it has labels that it had not before.
    """
    unknown = sorted(set(task.labels) - set(known))
    if unknown:
        way_out = f"Known: {', '.join(known)}; for other labels give the task another name"
        raise StreamError(describe(f"task {task.name!r}", "has labels that it had not before", unknown, way_out))
    if task.labels == tuple(known):
        return task
    number = {index: list(known).index(label) for index, label in enumerate(task.labels)}

    def renumbered(rows: Rows) -> list[Row]:
        if task.kind == "classify":
            return [{**row, "label": number[row["label"]]} for row in rows]
        return [{**row, "tags": [number.get(tag, tag) for tag in row["tags"]]} for row in rows]

    validation = renumbered(task.validation) if task.validation is not None else None
    train, evaluation = renumbered(task.train), renumbered(task.evaluation)
    return replace(task, train=train, evaluation=evaluation, validation=validation, labels=tuple(known))

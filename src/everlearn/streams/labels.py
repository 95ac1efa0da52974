"""Labels as numbers: the names that a task declares, or those that its rows use, in a fixed order."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from everlearn.errors import StreamError, describe, nearest
from everlearn.types import IGNORED, Row, Rows, Task

NO_TARGET = (-1, -100)  # what the ecosystem writes where a row or a token has no label
_WHOLE = re.compile(r"([+-]?[0-9]{1,18})(\.0*)?")


class BadRow(Exception):
    """One row can't be used; the message is the reason. Caught by the loader, which adds file and line."""


def key_of(label: str | int) -> str | int:
    """Return what labels that mean the same share: the value of a whole number, however it is written (0, "0", "0.0"),
    or the name without the white space around it."""  # fmt: skip
    if not isinstance(label, str):
        return int(label)
    name = unicodedata.normalize("NFC", label.strip())
    whole = _WHOLE.fullmatch(name)
    return int(whole[1]) if whole else name


class LabelBook:
    """Gives each label a number while rows are read.

    With declared names a label is a name or an index into them. Without, labels are numbered as they come, and `order`
    tells at the end where each belongs: by value if all are whole numbers, else by name.

    Attributes:
        closed: the training rows were read: what comes now is measured only.
    """

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.declared = tuple(labels)
        self.closed = False
        self._numbers: dict[str | int, int] = {}  # `key_of` a label -> its number
        self._spellings: dict[str | int, list[str]] = {}
        self._names: dict[int, str] = {}  # a row's label -> its label_name
        self._types: set[type] = set()
        self._n_unnamed = 0
        self._declared = {unicodedata.normalize("NFC", name.strip()): i for i, name in enumerate(labels)}

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
        key = key_of(label)
        self._note_name(key, name)
        if not untyped and not (isinstance(label, str) and isinstance(key, int)):
            self._types.add(type(key))
        spellings = self._spellings.setdefault(key, [])
        if str(label) not in spellings:
            spellings.append(str(label))
        return self._numbers.setdefault(key, len(self._numbers))

    def names(self) -> tuple[str, ...]:
        """Return the declared names, or those of the labels that came so far in the order of their numbers."""
        return self.declared or tuple(spellings[0].strip() for spellings in self._spellings.values())

    def marks_none(self, label: str | int, *, anywhere: bool = False) -> bool:
        """Tell whether `label` is a mark for "no label" and no label itself.

        -100 is one, and so is -1 where labels are declared, where no training row has it, and `anywhere` (among tags).
        A declared name never is.
        """
        key = key_of(label)
        if key not in NO_TARGET or str(key) in self._declared:
            return False
        return key == -100 or anywhere or bool(self.declared) or (self.closed and key not in self._numbers)

    def order(self, where: str) -> tuple[tuple[str, ...], list[int]]:
        """Return the label names in their final order, and for each number given so far its final number.

        Raises:
            StreamError: if some labels are whole numbers and others are names.
        """
        if self.declared:
            return self.declared, list(range(len(self.declared)))
        keys = list(self._numbers)
        if len(self._types) > 1:
            way_out = "Use names or numbers throughout, or give 'labels'"
            shown = sorted(map(str, keys))[:6]
            raise StreamError(describe(where, "labels are names in some rows and numbers in others", shown, way_out))
        whole = all(isinstance(key, int) for key in keys)
        shown_as = {key: str(key) if whole else self._spellings[key][0].strip() for key in keys}
        ordered = sorted(keys) if whole else sorted(keys, key=shown_as.__getitem__)
        place = {key: index for index, key in enumerate(ordered)}
        named = whole and not self._n_unnamed and len({self._names.get(key) for key in ordered}) == len(ordered)
        names = tuple(self._names[key] if named else shown_as[key] for key in ordered)
        return names, [place[key] for key in keys]

    def notes(self, where: str) -> list[str]:
        """Return which labels were written in several ways, and whether a -1 that may mean "none" counts as a class."""
        several = [sorted(spellings) for spellings in self._spellings.values() if len(spellings) > 1]
        found = [f"{where}: the labels {' and '.join(map(repr, spellings))} are one." for spellings in several]
        if -1 in self._numbers and 0 in self._numbers:
            found.append(
                f"{where}: -1 counts as a class, since training rows have it; if it means that a row has no label, "
                "take these rows out."
            )
        return found

    def _declared_number(self, label: str | int, untyped: bool, name: str | None) -> int:
        key = key_of(label)
        text = unicodedata.normalize("NFC", label.strip()) if isinstance(label, str) else str(label)
        if text in self._declared and (isinstance(label, str) or label < 0):
            return self._declared[text]
        if isinstance(key, str) or (isinstance(label, str) and not untyped):
            raise BadRow(f"unknown label {label!r}. {nearest(text, self.declared)}".rstrip())
        if not 0 <= key < len(self.declared):
            raise BadRow(f"unknown label {label!r}: the labels are numbered 0 to {len(self.declared) - 1}")
        if name is not None and not isinstance(label, str) and name != self.declared[key]:
            raise BadRow(f"label {label} is {self.declared[key]!r}, but label_name says {name!r}")
        return key

    def _note_name(self, key: str | int, name: str | None) -> None:
        if isinstance(key, str):
            return
        if name is None:
            self._n_unnamed += 1
            return
        known = self._names.setdefault(key, name)
        if known != name:
            raise BadRow(f"label {key} was {known!r} before, but label_name says {name!r}")


def tag_names(tags: Sequence[int], labels: Sequence[str]) -> list[str | None]:
    """Return the names of tags; None for a word without one."""
    return [None if tag == IGNORED else labels[tag] for tag in tags]


def with_labels(task: Task, known: Sequence[str]) -> Task:
    """Return a task with its labels numbered as they were when it was learned before; they are matched by meaning.

    Raises:
        StreamError: if it has labels that it had not before.
    """
    places = {key_of(label): place for place, label in reversed(list(enumerate(known)))}
    places |= {label: place for place, label in enumerate(known)}
    place_of = {label: places.get(label, places.get(key_of(label))) for label in task.labels}
    unknown = sorted(label for label, place in place_of.items() if place is None)
    if unknown:
        way_out = f"Known: {', '.join(known)}; for other labels give the task another name"
        raise StreamError(describe(f"task {task.name!r}", "has labels that it had not before", unknown, way_out))
    if task.labels == tuple(known):
        return task
    number = {index: place_of[label] for index, label in enumerate(task.labels)} | {IGNORED: IGNORED}

    def renumbered(rows: Rows) -> list[Row]:
        if task.kind == "classify":
            return [{**row, "label": number[row["label"]]} for row in rows]
        if task.kind == "multilabel":
            return [{**row, "labels": [number[label] for label in row["labels"]]} for row in rows]
        return [{**row, "tags": [number[tag] for tag in row["tags"]]} for row in rows]

    validation = renumbered(task.validation) if task.validation is not None else None
    train, evaluation = renumbered(task.train), renumbered(task.evaluation)
    return replace(task, train=train, evaluation=evaluation, validation=validation, labels=tuple(known))

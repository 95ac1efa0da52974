"""The tasks of a home and their evaluation items: in files that never change, added, taken out, corrected."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from everlearn.config import from_mapping
from everlearn.errors import StateError, StreamError, describe, nearest
from everlearn.files import read_sealed, sha256_of, write_sealed
from everlearn.state import write_file
from everlearn.streams.checking import answer_of, digest_of
from everlearn.types import Kind, Row, Task

CARD, ITEMS = "task.json", "evaluation.jsonl"  # in a version's folder: its task, and the items that came with it


@dataclass(frozen=True)
class TaskCard:
    """What a task is. `items` names the files of its evaluation rows and their SHA-256, in the order of the items.

    `declared`: whether the labels were given, so that whole numbers in rows are indices into them. `sources`: the
    versions whose items came in. `n_revisions`: how often items were taken out or corrected.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    declared: bool = False
    metrics: tuple[str, ...] = ()
    verifier: str | None = None
    max_new_tokens: int | None = None
    items: dict[str, str] = field(default_factory=dict)
    sources: tuple[int, ...] = ()
    n_revisions: int = 0
    description: str = ""
    threshold: str | None = None
    beta: float = 0.1

    @property
    def meaning(self) -> "TaskCard":
        """The card without its items and words: two that are equal mean the same by their rows."""
        return replace(self, items={}, sources=(), n_revisions=0, description="")

    def task(self, train: Sequence[Row], evaluation: Sequence[Row], validation: Sequence[Row] | None = None) -> Task:
        """Return the task with these rows."""
        return Task(
            self.name, self.kind, train, evaluation, validation or None, self.labels, self.metrics, self.verifier,
            self.max_new_tokens, description=self.description, threshold=self.threshold, beta=self.beta,
        )  # fmt: skip


def load_tasks(folder: Path) -> dict[str, tuple[TaskCard, list[Row]]]:
    """Return each task's card and evaluation items below `folder`.

    Raises:
        StateError: if a file is missing or altered.
    """
    found = sorted(path.parent.name for path in folder.glob(f"*/{CARD}") if not path.parent.name.startswith("."))
    return {name: load_task(folder / name) for name in found}


def load_task(folder: Path) -> tuple[TaskCard, list[Row]]:
    """Return one task's card and evaluation items."""
    card = from_mapping(TaskCard, read_sealed(folder / CARD), f"task {folder.name!r}")
    rows: list[Row] = []
    for name, sha256 in card.items.items():
        if sha256_of(folder / name) != sha256:
            way_out = "Restore it from a copy of the home"
            raise StateError(describe(str(folder / name), "is damaged (its checksum differs)", name, way_out))
        rows += read_rows(folder / name)
    return card, rows


def known_task(folder: Path, name: str) -> tuple[TaskCard, list[Row]]:
    """Return the card and the items of one of the tasks below `folder`.

    Raises:
        StateError: if there is none of that name, or its files are damaged.
    """
    names = sorted(path.parent.name for path in folder.glob(f"*/{CARD}"))
    if name not in names:
        way_out = f"{nearest(name, names)}Tasks: {', '.join(names)}"
        raise StateError(describe(str(folder.parent), "knows no such task", name, way_out))
    return load_task(folder / name)


def task_before(folder: Path, card: TaskCard, number: int) -> tuple[TaskCard, list[Row]]:
    """Return what the home knew of the task that version `number` learns; nothing if it knew only refused attempts.

    Args:
        folder: of the task. card: as it was when the learning was laid down, with the files of the items there were.
    """
    if (folder / CARD).exists():
        present = load_task(folder)
        if card.items or number in present[0].sources:
            return present
    return card, []


def add_items(folder: Path, card: TaskCard, rows: Sequence[Row], version: int) -> None:
    """Keep a task's card and the items that came with a version; the ones it has stay as they are.

    A file of items is never changed, and counts once task.json names it: a crash in between changes nothing.
    """
    if version in card.sources:
        return
    folder.mkdir(parents=True, exist_ok=True)
    name = f"evaluation-{version:06d}.jsonl"
    items = dict(card.items)
    if rows:
        write_rows(folder / name, rows)
        items[name] = sha256_of(folder / name)
    write_sealed(folder / CARD, asdict(replace(card, items=items, sources=(*card.sources, version))))


def replace_items(folder: Path, card: TaskCard, rows: Sequence[Row]) -> None:
    """Let other items take the place of all that a task has. The files of those before stay, unnamed."""
    n_revisions = card.n_revisions + 1
    name = f"evaluation-revised-{n_revisions:06d}.jsonl"
    write_rows(folder / name, rows)
    items = {name: sha256_of(folder / name)}
    write_sealed(folder / CARD, asdict(replace(card, items=items, n_revisions=n_revisions)))


def keep_own(folder: Path, card: TaskCard, rows: Sequence[Row]) -> None:
    """Write a version's own task and the items that came with it into the version's folder."""
    write_sealed(folder / CARD, asdict(card.meaning))
    write_rows(folder / ITEMS, rows)


def load_own(folder: Path) -> tuple[TaskCard, list[Row]] | None:
    """Return what `keep_own` wrote; None for a version that was made before versions kept it."""
    if not (folder / CARD).exists():
        return None
    card = from_mapping(TaskCard, read_sealed(folder / CARD), str(folder / CARD))
    return card, read_rows(folder / ITEMS)


def tasks_with_own(
    stored: Mapping[str, tuple[TaskCard, list[Row]]], folders: Mapping[int, Path], *, own_counts: bool = False
) -> dict[str, tuple[TaskCard, list[Row]]]:
    """Return a home's tasks and, of versions that the home did not accept, their own.

    Args:
        folders: of those versions, by number.
        own_counts: a task is what the version takes it for, where the home takes it for something else.

    Raises:
        StateError: if two versions, or one and the home, take a task for different things.
    """
    found = dict(stored)
    for number, folder in folders.items():
        own = load_own(folder)
        if own is None:
            continue
        card, rows = own
        known, present = found.get(card.name, (card, []))
        if own_counts and known.meaning != card.meaning:
            known, present = card, []
        check_same(known, card, number)
        found[card.name] = (known, [*present, *new_items(rows, present)[0]])
    return found


def check_same(known: TaskCard, card: TaskCard, number: int) -> None:
    """Do nothing if a version's own card means what the home's means.

    Raises:
        StateError: with the value that differs.
    """
    if known.meaning != card.meaning:
        ours, theirs = asdict(known.meaning), asdict(card.meaning)
        differing = {key: value for key, value in theirs.items() if ours[key] != value}
        way_out = f"Take it out of the home: everlearn export HOME DIR --version {number}"
        what = f"took task {card.name!r} for something else than the home does now"
        raise StateError(describe(f"version {number}", what, differing, way_out))


def item_of(row: Row) -> str:
    """Return what names an evaluation item: 16 hex digits over its content and its answer, whatever their order."""
    text = json.dumps(dict(row), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def revised(name: str, present: Sequence[Row], rows: Sequence[Row], *, correct: bool) -> tuple[list[Row], int]:
    """Return a task's items without those that `rows` name or, with `correct`, with the answers that `rows` give; and
    how many items differ from before.

    Raises:
        StreamError: if a row is no item, two rows give one item different answers, a row has another answer than the
            item and `correct` isn't given, or no item would be left.
    """
    where = f"task {name!r}"
    given: dict[bytes, Row] = {}
    n_twice = 0
    for row in rows:
        n_twice += item_of(given.setdefault(digest_of(row), row)) != item_of(row)
    if n_twice:
        raise StreamError(describe(where, "rows give one item different answers", n_twice, "Give each item one"))
    unknown = len(given.keys() - {digest_of(row) for row in present})
    if unknown:
        way_out = "Give rows that are evaluation items now; nothing was changed"
        raise StreamError(describe(where, "rows are no evaluation items of the task", unknown, way_out))
    named = [(row, given.get(digest_of(row))) for row in present]
    differing = sum(new is not None and item_of(new) != item_of(row) for row, new in named)
    if correct:
        return [row if new is None else dict(new) for row, new in named], differing
    if differing:
        way_out = "Use --correct to put these in their place, or give the rows as they are stored to take them out"
        raise StreamError(describe(where, "rows differ from the items that they name", differing, way_out))
    left = [row for row, new in named if new is None]
    if not left:
        way_out = "Leave at least one, or teach the task other evaluation rows first"
        raise StreamError(describe(where, "no evaluation item would be left", len(present), way_out))
    return left, len(present) - len(left)


def new_items(rows: Iterable[Row], present: Iterable[Row]) -> tuple[list[Row], int]:
    """Return the rows whose content is not among `present`, and how many are there with another answer."""
    known = {digest_of(row): row for row in present}
    fresh, n_differing = [], 0
    for row in rows:
        stored = known.get(digest_of(row))
        if stored is None:
            fresh.append(dict(row))
        elif answer_of(stored) != answer_of(row):
            n_differing += 1
    return fresh, n_differing


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON Lines; values that JSON lacks, such as dates, become text."""
    lines = (json.dumps(dict(row), ensure_ascii=False, default=str) for row in rows)
    write_file(path, "".join(f"{line}\n" for line in lines).encode("utf-8"))


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file that `write_rows` wrote.

    Raises:
        StateError: if it can't be read.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        way_out = "Restore it from a copy of the home"
        raise StateError(describe(str(path), f"can't be read ({error})", path.name, way_out)) from error

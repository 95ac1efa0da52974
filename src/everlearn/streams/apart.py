"""What is trained on and what is measured, kept apart by content over all tasks: of a stream, a trainer, a home."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch

from everlearn.errors import StreamError, describe
from everlearn.streams.checking import digest_of, loose_digest_of
from everlearn.streams.sampled import SampledRows, let_go
from everlearn.types import Rows, Stream, Task, TensorRows

_DIGESTS = ("trained", "items", "loose_trained", "loose_items")
ALLOW = "or set allow_overlap: true, and take their scores for what they are"


@dataclass(frozen=True)
class _Contents:
    """Digests of the rows that a task trains on, its validation rows among them, and of its evaluation items."""

    task: Task
    trained: frozenset[bytes]
    items: frozenset[bytes]
    loose_trained: frozenset[bytes]
    loose_items: frozenset[bytes]

    @classmethod
    def of(cls, task: Task) -> "_Contents":
        roles = ((task.train, task.validation or ()), (task.evaluation,))
        exact = (frozenset(key for rows in role for key in digests_of(task, rows)) for role in roles)
        loose = (frozenset(key for rows in role for key in _loose_digests_of(task, rows)) for role in roles)
        return cls(task, *exact, *loose)

    def state(self) -> dict[str, Any]:
        """Return it as tensors, uint8 [n, 16], and the task's name."""
        return {"task": self.task.name, **{name: _as_tensor(vars(self)[name]) for name in _DIGESTS}}


@dataclass(frozen=True)
class Apart:
    """The tasks met so far. No row that one trains on is an evaluation item of another, or of its own."""

    known: tuple[_Contents, ...] = ()

    def with_task(self, task: Task) -> tuple["Apart", list[str]]:
        """Return this with one task more, and sentences on what is nearly shared, or shared because it may be.

        Raises:
            StreamError: if rows to train on are evaluation items, or items were trained on: which tasks, how many, and
                the first places. Where one of the two tasks allows it (`Task.allow_overlap`) it is told instead, as it
                is within a task whose rows come from the user's own data loaders.
        Cost: hashes every row of the task once.
        """
        new = _Contents.of(task)
        everyone = (*self.known, new)
        notes = _look(new, [(new, other) for other in everyone], "Take them out of the training rows")
        notes += _look(new, [(other, new) for other in self.known], "Take them out of the evaluation rows")
        return Apart((*self.known, replace(new, task=let_go(task)))), notes

    def unmeasured(self, task: Task) -> list[int]:
        """Return which of a task's training rows are no evaluation items of any task met."""
        items = frozenset().union(*(one.items for one in self.known))
        return [number for number, digest in enumerate(digests_of(task, task.train)) if digest not in items]

    def state(self) -> list[dict[str, Any]]:
        """Return what was met, as tensors and JSON."""
        return [contents.state() for contents in self.known]

    @classmethod
    def from_state(cls, state: list[Mapping[str, Any]], tasks: Mapping[str, Task]) -> "Apart":
        """Return what `state` was taken of. tasks: by name; their rows may be gone, places can't be told then."""
        return cls(tuple(_Contents(tasks[s["task"]], *(_as_digests(s[name]) for name in _DIGESTS)) for s in state))


def keep_apart(stream: Stream, names: Collection[str]) -> Stream:
    """Return the stream, where no task of `names` trains on an evaluation item of any of them; see `Apart.with_task`.

    What there is to tell stands in the tasks' notes.
    """
    apart, tasks = Apart(), []
    for task in stream:
        if task.name in names:
            apart, notes = apart.with_task(task)
            task = replace(task, notes=(*task.notes, *notes))
        tasks.append(task)
    return Stream(stream.name, tuple(tasks))


def digests_of(task: Task, rows: Rows) -> Iterator[bytes]:
    """Yield for each row 16 bytes that are equal for rows of equal content: what is asked, or the bytes of a tensor."""
    if isinstance(rows, SampledRows):
        yield from rows.each_digest()
        return
    if isinstance(rows, TensorRows):
        content, n_bytes = bytes_of(rows.x), rows.x.nbytes // max(1, len(rows))
        asked = (content[start : start + n_bytes] for start in range(0, len(content), n_bytes or 1))
    elif task.kind == "tensor":  # samples that differ in shape
        asked = (bytes_of(row["x"]) if isinstance(row["x"], torch.Tensor) else repr(row["x"]).encode() for row in rows)
    else:
        yield from map(digest_of, rows)
        return
    yield from map(digest_of_bytes, asked)


def digest_of_bytes(content: bytes | memoryview) -> bytes:
    """Return 16 bytes that are equal for equal content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor's values in their order."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def _loose_digests_of(task: Task, rows: Rows) -> Iterator[bytes]:
    return iter(()) if task.kind == "tensor" else map(loose_digest_of, rows)


def _look(new: _Contents, pairs: list[tuple[_Contents, _Contents]], way_out: str) -> list[str]:
    """Compare what the first of each pair trains on with what the second measures; one of the two is `new`."""
    refused: dict[str, frozenset[bytes]] = {}
    first: tuple[Task, Task] | None = None
    notes = []
    for trained, measured in pairs:
        shared = trained.trained & measured.items
        allowed = "allow_overlap is set" if trained.task.allow_overlap or measured.task.allow_overlap else ""
        if not allowed and trained is measured and trained.task.loader is not None:
            allowed = "both of the task's own data loaders hold them"
        near = trained.loose_trained & measured.loose_items
        one, other = trained.task.name, measured.task.name
        if shared and not allowed:
            refused[other if trained is new else one] = shared
            first = first or (trained.task, measured.task)
        elif shared:
            what = f"rows of it that are evaluation items of {other!r}"
            notes.append(f"task {one!r}: {what}: {len(shared)} ({allowed}).")
        elif near and trained is not measured:  # within a task the loader tells it, with the places
            what = (
                f"rows of it that differ from evaluation items of {other!r} in case, white space or Unicode form alone"
            )
            notes.append(f"task {one!r}: {what}: {len(near)}.")
    if first is not None:
        counts = {name: len(shared) for name, shared in refused.items()}
        what = "training rows are evaluation items" if first[0] is new.task else "evaluation items are training rows"
        what += f" of tasks, the first is {_places(*first, next(iter(refused.values())))}"
        raise StreamError(describe(f"task {new.task.name!r}", what, counts, f"{way_out}, {ALLOW}"))
    return notes


def _places(trained: Task, measured: Task, shared: frozenset[bytes]) -> str:
    places: dict[bytes, str] = {}
    for role, rows in (("training", trained.train), ("validation", trained.validation or ())):
        for number, digest in enumerate(digests_of(trained, rows), start=1):
            places.setdefault(digest, f"{role} row {number}")
    digest = next((digest for digest in places if digest in shared), min(shared))
    items = list(digests_of(measured, measured.evaluation))
    item = f"evaluation item {items.index(digest) + 1}" if digest in items else "an evaluation item"
    return f"{places.get(digest, 'a training row')} of {trained.name!r} and {item} of {measured.name!r}"


def _as_tensor(digests: frozenset[bytes]) -> torch.Tensor:
    content = numpy.frombuffer(b"".join(sorted(digests)), dtype=numpy.uint8).copy()
    return torch.from_numpy(content).view(-1, 16)


def _as_digests(tensor: torch.Tensor) -> frozenset[bytes]:
    content = tensor.numpy().tobytes()
    return frozenset(content[start : start + 16] for start in range(0, len(content), 16))

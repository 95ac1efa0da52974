"""A learning in progress: all that is needed to carry it out, or to go on after a crash, stands in the home's pending/.

pending/plan.json  train.jsonl  validation.jsonl  evaluation.jsonl  before.json  references.json  likelihood.json
checkpoints/  version/  failed.json
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from everlearn.config import CheckpointConfig, from_mapping
from everlearn.errors import (
    ConfigError,
    EverlearnError,
    ModelError,
    Paused,
    StateError,
    StreamError,
    TrainingError,
    describe,
)
from everlearn.evaluation.answers import without_answers
from everlearn.files import read_sealed, sha256_of, write_sealed
from everlearn.home.gate import Gate
from everlearn.home.references import References, references_from, references_values
from everlearn.home.settings import Settings
from everlearn.home.store import Store, remove
from everlearn.home.tasks import TaskCard, read_rows, write_rows
from everlearn.state import checkpoints, fsync_folder, writing
from everlearn.types import Row, Score, Task

_ROWS = ("train", "validation", "evaluation")


@dataclass(frozen=True)
class Plan:
    """What a learning is to do. number: of the version that it makes. parent: the version it starts from.

    card: the task, with the evaluation items that the home holds already.
    """

    number: int
    parent: int
    card: TaskCard
    learner: dict[str, Any]
    strategies: list[str | dict[str, Any]]
    seed: int
    gate: Gate = field(default_factory=Gate)
    force: bool = False
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def settings(self, settings: Settings) -> Settings:
        """Return a home's settings with what this learning does differently."""
        return replace(settings, learner=self.learner, strategies=self.strategies, checkpoint=self.checkpoint)


def write_pending(store: Store, plan: Plan, rows: Mapping[str, Sequence[Row]]) -> None:
    """Lay down a learning; pending/ appears whole or not at all.

    Args:
        rows: train, validation and new evaluation rows.
    """
    aside = store.path / f".pending.{os.getpid()}.tmp"
    with writing(aside):
        remove(aside)
        aside.mkdir()
    for name in _ROWS:
        write_rows(aside / f"{name}.jsonl", rows[name])
    data = {f"n_{name}": len(rows[name]) for name in _ROWS}
    data |= {f"{name}_sha256": sha256_of(aside / f"{name}.jsonl") for name in _ROWS}
    write_sealed(aside / "plan.json", asdict(replace(plan, data=data)))
    with writing(store.pending):
        os.rename(aside, store.pending)
        fsync_folder(store.path)


def read_plan(store: Store) -> Plan:
    """Return the plan in pending/.

    Raises:
        StateError: if it is damaged.
    """
    try:
        return from_mapping(Plan, read_sealed(store.pending / "plan.json"), "pending")
    except (StateError, ConfigError) as error:
        way_out = f"Drop it: {_drop(store)}"
        reason = str(error).rstrip(".")
        raise StateError(describe(str(store.pending), "no plan can be read", reason, way_out)) from error


def read_task(store: Store, plan: Plan, present: Sequence[Row]) -> tuple[Task, list[Row]]:
    """Return the task to learn, its new evaluation items after those `present`, and these new items alone."""
    rows = {name: read_rows(store.pending / f"{name}.jsonl") for name in _ROWS}
    return plan.card.task(rows["train"], [*present, *rows["evaluation"]], rows["validation"]), rows["evaluation"]


def keep_before(store: Store, scores: Mapping[str, Score]) -> None:
    """Write down the scores before the learning, so that one that goes on after a crash compares with the same."""
    write_sealed(_before(store), {name: without_answers(score) for name, score in scores.items()})


def read_before(store: Store) -> dict[str, Score] | None:
    """Return the scores before the learning, or None if it did not come so far."""
    if not _before(store).exists():
        return None
    return {
        name: from_mapping(Score, value, "pending/before.json") for name, value in read_sealed(_before(store)).items()
    }


def keep_references(store: Store, references: Mapping[str, References]) -> None:
    """Write down what the new version will be compared with."""
    write_sealed(_references(store), references_values(references))


def read_references(store: Store) -> dict[str, References] | None:
    """Return what `keep_references` wrote, or None if the learning did not come so far."""
    return references_from(read_sealed(_references(store))) if _references(store).exists() else None


def keep_likelihood(store: Store, likelihood: Score) -> None:
    """Write down the likelihood of the task's right answers before the learning."""
    write_sealed(_likelihood(store), without_answers(likelihood))


def read_likelihood(store: Store) -> Score | None:
    """Return what `keep_likelihood` wrote, or None if the learning did not come so far."""
    if not _likelihood(store).exists():
        return None
    return from_mapping(Score, read_sealed(_likelihood(store)), "pending/likelihood.json")


def note_failure(store: Store, error: BaseException) -> None:
    """Write down why the learning in pending/ could not go on."""
    text = " ".join(str(error).split())
    reason = text if isinstance(error, EverlearnError) else f"{type(error).__name__}: {text}".removesuffix(": ")
    with suppress(StateError):  # where the disk is full or pending/ is gone, the error itself matters more
        write_sealed(_failed(store), {"reason": reason})


def clear_failure(store: Store) -> None:
    """Forget why it failed: it goes on."""
    _failed(store).unlink(missing_ok=True)


def read_failure(store: Store) -> str | None:
    """Return why the learning in pending/ could not go on; None if it was paused or killed."""
    return read_sealed(_failed(store))["reason"] if _failed(store).exists() else None


def ways_on(store: Store) -> str:
    """Return what can be done about a learning that is not finished, a sentence without its stop."""
    return f"Go on with it: everlearn resume {store.path}; or drop it: {_drop(store)}"


@contextmanager
def kept_on_failure(store: Store, *, begun: bool = False) -> Iterator[None]:
    """Keep the learning in pending/ where it can't go on, with the reason, and let the error name the ways on.

    Args:
        begun: it was laid down just now. What can't be done as it was asked is then dropped, before it was trained on.

    Raises:
        EverlearnError: of the kind that it was; TrainingError if memory ran out. Other errors pass, with a note.
    """
    try:
        yield
    except Paused:
        raise
    except EverlearnError as error:
        as_asked = not isinstance(error, ConfigError | ModelError | StreamError)
        if begun and not as_asked and not checkpoints(store.pending / "checkpoints"):
            store.forget_pending()
            raise
        note_failure(store, error)
        raise type(error)(f"{error} {ways_on(store)}.") from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        note_failure(store, error)
        way_out = f"Drop it, and learn with a smaller --batch-size or a shorter model.max_length. {ways_on(store)}"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrainingError(describe(str(store.path), "memory ran out while learning", reason, way_out)) from error
    except Exception as error:
        note_failure(store, error)
        error.add_note(f"{ways_on(store)}.")
        raise


def refuse_pending(store: Store) -> None:
    """Raise StateError: a learning is in progress, was killed or failed, and must be ended one way or the other."""
    plan, reason = read_plan(store), read_failure(store)
    how = "was begun and not finished" if reason is None else f"failed ({reason.rstrip('.')})"
    what = f"learning {plan.card.name!r} {how}"
    raise StateError(describe(str(store.path), what, f"version {plan.number}", ways_on(store)))


def _drop(store: Store) -> str:
    return f"everlearn learn {store.path} --discard-pending --task NAME --train FILE"


def _before(store: Store) -> Path:
    return store.pending / "before.json"


def _references(store: Store) -> Path:
    return store.pending / "references.json"


def _likelihood(store: Store) -> Path:
    return store.pending / "likelihood.json"


def _failed(store: Store) -> Path:
    return store.pending / "failed.json"

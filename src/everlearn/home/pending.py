"""A learning in progress: all that is needed to carry it out, or to go on after a crash, stands in the home's pending/.

pending/plan.json  train.jsonl  validation.jsonl  evaluation.jsonl  before.json  checkpoints/  version/
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from everlearn.config import CheckpointConfig, from_mapping
from everlearn.home.files import read_sealed, sha256_of, write_sealed
from everlearn.home.gate import Gate
from everlearn.home.settings import Settings
from everlearn.home.store import Store, remove
from everlearn.home.tasks import TaskCard, read_rows, write_rows
from everlearn.state import fsync_folder, writing
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
    return from_mapping(Plan, read_sealed(store.pending / "plan.json"), "pending")


def read_task(store: Store, plan: Plan, present: Sequence[Row]) -> tuple[Task, list[Row]]:
    """Return the task to learn, its new evaluation items after those `present`, and these new items alone."""
    rows = {name: read_rows(store.pending / f"{name}.jsonl") for name in _ROWS}
    return plan.card.task(rows["train"], [*present, *rows["evaluation"]], rows["validation"]), rows["evaluation"]


def keep_before(store: Store, scores: Mapping[str, Score]) -> None:
    """Write down the scores before the learning, so that one that goes on after a crash compares with the same."""
    write_sealed(_before(store), {name: asdict(score) for name, score in scores.items()})


def read_before(store: Store) -> dict[str, Score] | None:
    """Return the scores before the learning, or None if it did not come so far."""
    if not _before(store).exists():
        return None
    return {
        name: from_mapping(Score, value, "pending/before.json") for name, value in read_sealed(_before(store)).items()
    }


def _before(store: Store) -> Path:
    return store.pending / "before.json"

"""What a library knows of an expert, and what it is told when one has learned a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from everlearn.errors import ConfigError, describe
from everlearn.types import Score

if TYPE_CHECKING:
    from everlearn.models.adapters import Adapters

LIVE, RETIRED, PRUNED = "live", "retired", "pruned"


@dataclass(frozen=True)
class Head:
    """A classifier's head: weight [classes, width], bias [classes] or None, and its labels in order."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.weight.ndim != 2 or len(self.weight) != n or (self.bias is not None and self.bias.shape != (n,)):
            shapes = [tuple(part.shape) for part in (self.weight, self.bias) if part is not None]
            raise ConfigError(describe("head", f"doesn't fit its {n} labels", shapes, "Give a row for each label"))

    @classmethod
    def of(cls, adapters: "Adapters", task: str) -> "Head":
        """Return a copy, on the CPU, of a task's head in a model.

        Raises:
            ConfigError: if the task has no head of its own there.
        """
        block = _block(adapters, task)
        bias = None if block.bias is None else block.bias.detach().to("cpu", copy=True)
        return cls(block.weight.detach().to("cpu", copy=True), bias, adapters.task_labels[task])

    def copy_to(self, adapters: "Adapters", task: str) -> None:
        """Set a task's head in a model to this one.

        Raises:
            ConfigError: if the task has no head of its own there, or its labels are others.
        """
        block = _block(adapters, task)
        if adapters.task_labels[task] != self.labels:
            way_out = f"Let the task have these labels, in this order: {', '.join(self.labels)}"
            raise ConfigError(describe(f"task {task!r}", "has other labels", adapters.task_labels[task], way_out))
        with torch.no_grad():
            block.weight.copy_(self.weight)
            if self.bias is not None:
                block.bias.copy_(self.bias)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A task that an expert has just learned.

    Args:
        n_rows: that it was trained on. score: on the task's own items.
        prototype: the task's vector in the space where experts are looked up, [dimension].
        head: where the task is a classification with a head of its own.
    """

    task: str
    n_rows: int = 0
    score: Score | None = None
    prototype: torch.Tensor | None = None
    head: Head | None = None


@dataclass(frozen=True)
class Expert:
    """What is known of one expert. It never changes: a library gives another one in its place.

    Attributes:
        tag: of experiment and task; description: of what it is for, in words.
        origin: created, forked, merged or imported; parents: the experts that it came from.
        status: live; retired: out of use, and still there; pruned: its files are gone.
        tasks: that it learned, in order; rows: {task: rows trained on}.
        scores: {task: {metric, value, n, low, high}}, 95% intervals. labels: {task: labels of its head}.
        uses: how often it was chosen; outcomes: what came of that, as whoever chose it tells.
        prototypes: {task: number of its row in the library's profiles}.
        folder: of its weights; earlier: of those that it had before it was adapted, oldest first.
        files: {name: [bytes, SHA-256]} of `folder`.
    """

    number: int
    tag: str
    description: str
    origin: str
    folder: str
    rank: int
    targets: tuple[str, ...]
    time: str
    parents: tuple[int, ...] = ()
    status: str = LIVE
    reason: str = ""  # why it was retired
    tasks: tuple[str, ...] = ()
    rows: dict[str, int] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    uses: int = 0
    outcomes: tuple[Any, ...] = ()
    prototypes: dict[str, int] = field(default_factory=dict)
    earlier: tuple[str, ...] = ()
    files: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Expert":
        """Return what `vars` of an expert became in JSON."""
        listed = ("targets", "parents", "tasks", "outcomes", "earlier")
        return cls(**{key: tuple(item) if key in listed else item for key, item in value.items()})

    @property
    def n_bytes(self) -> int:
        """Size of its files."""
        return sum(size for size, _ in self.files.values())

    def having_learned(self, learned: Learned) -> "Expert":
        """Return the expert as it is after a task: its rows add up, its score is the last one."""
        name = learned.task
        n_rows = self.rows.get(name, 0) + learned.n_rows
        scores = self.scores if learned.score is None else {**self.scores, name: score_entry(learned.score)}
        labels = self.labels if learned.head is None else {**self.labels, name: list(learned.head.labels)}
        tasks = tuple(dict.fromkeys((*self.tasks, name)))
        return replace(self, tasks=tasks, rows={**self.rows, name: n_rows}, scores=scores, labels=labels)


def score_entry(score: Score) -> dict[str, Any]:
    """Return what is kept of a score."""
    return {key: value for key, value in vars(score).items() if key in ("metric", "value", "n", "low", "high")}


def _block(adapters: "Adapters", task: str) -> torch.nn.Linear:
    if task not in adapters.task_blocks:
        way_out = "Use model.head: task, and a task that the model has seen"
        raise ConfigError(describe(f"task {task!r}", "has no head of its own", list(adapters.task_blocks), way_out))
    return adapters.head.blocks[adapters.task_blocks[task]]

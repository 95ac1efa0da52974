"""The values that cross borders: tasks, streams, scores and results. All frozen."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from everlearn.errors import StreamError, describe

Kind = Literal["prompt", "preference", "classify", "multilabel", "score", "tag", "text", "tensor"]
KINDS: tuple[Kind, ...] = ("prompt", "preference", "classify", "multilabel", "score", "tag", "text", "tensor")

Family = Literal["categorical", "bernoulli", "normal"]
Row = Mapping[str, Any]
Rows = Sequence[Row]  # a datasets.Dataset, NestedRows (streams/rows.py), a list of dicts, or TensorRows
IGNORED = -100  # the ecosystem's label for a position without a target
NUMBER = "score"  # what the one output of a head that answers with a number is called


@dataclass(frozen=True)
class TensorRows(Sequence):
    """Inputs `x` [n, ...] and targets `y` [n] of a plain module, seen as rows {"x": ..., "y": ...}."""

    x: torch.Tensor
    y: torch.Tensor

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise StreamError(
                describe("TensorRows", "x and y differ in length", (len(self.x), len(self.y)), "Pass one y for each x")
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return TensorRows(self.x[index], self.y[index])
        return {"x": self.x[index], "y": self.y[index]}

    def inputs(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the rows at `indices`, int64 [n], in that order."""
        return self.x[indices]

    def select(self, indices: Sequence[int]) -> "TensorRows":
        """Return the rows at `indices`, in that order."""
        picked = torch.as_tensor(indices, dtype=torch.long)
        return TensorRows(self.x[picked], self.y[picked])


@dataclass(frozen=True)
class Loader:
    """What a data loader of the user's makes of a task's rows: it decides which rows meet in which batch.

    Attributes:
        samples: the sample of each row, read from the user's dataset whenever a batch takes it.
        collate: samples -> (x [n, ...], y [n, ...]), in their order.
        epochs: of each epoch its batches' row numbers end to end [n], and how many each batch has [n_batches]; int32.
    """

    samples: Sequence[Any]
    collate: Callable[[list[Any]], tuple[torch.Tensor, torch.Tensor]]
    epochs: Sequence[tuple[torch.Tensor, torch.Tensor]]

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the row numbers of an epoch's batches."""
        rows, sizes = self.epochs[epoch % len(self.epochs)]
        return [part.tolist() for part in rows.split(sizes.tolist())]

    def n_batches(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        return len(self.epochs[epoch % len(self.epochs)][1])


@dataclass(frozen=True)
class Task:
    """One thing to learn: its training rows and the fixed items that it is measured on.

    Columns by kind: `prompt` has `prompt` and `completion` (strings), or `messages` and optionally `tools`, and
    optionally `choices` (list of strings); `classify` has `text`, optionally `text_pair`, and `label` (an index into
    `labels`); `multilabel` the same with `labels`, a list of such indices, which may be empty; `score` the same with
    `score`, a real number; `tag` has `tokens` (list of strings) and `tags` (list of indices into `labels`, or IGNORED);
    `preference` has `prompt`, a text or a list of messages, and `chosen` and `rejected`, texts; `text` has `text`;
    `tensor` is a `TensorRows`, or samples {"x": ..., "y": ...} that only `loader.collate` can put
    into a batch (sentences that it pads, say).
    `metrics` are names of scores (evaluation/score.py), the first one fills the accuracy matrix; empty: the kind's own.
    `verifier` names a registered function (completion, row) -> bool that replaces exact match.
    `max_new_tokens` of an answer; None: the limit follows the longest completion of the rows that are scored.
    `notes` are sentences on the rows that the user should know, found when they were read.
    `description`: what it is, in words; empty: its name says it.
    `allow_overlap`: rows that are trained on may be evaluation items, of this task or another.
    `threshold`: of several labels, which chances are taken: None for those from 0.5 on; one, or each: chosen when the
    task was learned, by F1 on its validation rows, for all labels or each by itself.
    `beta`: of preferences, how much a change of log-likelihoods counts (`everlearn.models.preferences`).
    `loader`, where the training rows come from the user's own data loader, draws the batches.
    """

    name: str
    kind: Kind
    train: Rows
    evaluation: Rows
    validation: Rows | None = None
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    verifier: str | None = None
    max_new_tokens: int | None = None
    notes: tuple[str, ...] = ()
    allow_overlap: bool = False
    loader: Loader | None = None
    description: str = ""
    threshold: str | None = None
    beta: float = 0.1

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what a head puts out for the task: its labels, or its one number."""
        return (NUMBER,) if self.kind == "score" else self.labels

    @property
    def is_regression(self) -> bool:
        """Whether its answers are real numbers."""
        if self.kind != "tensor":
            return self.kind == "score"
        known = self.train if len(self.train) else self.evaluation
        return bool(len(known)) and self.targets(known[:1]).is_floating_point()

    def targets(self, rows: Rows) -> torch.Tensor:
        """Return the targets of the rows of a `tensor` task [n, ...]."""
        if isinstance(rows, TensorRows):
            return rows.y
        return torch.cat([self.loader.collate([(row["x"], row["y"])])[1] for row in rows])


@dataclass(frozen=True)
class Stream:
    """Tasks in the order in which they are learned. Names are unique."""

    name: str
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise StreamError(describe(f"stream {self.name!r}", "task names repeat", twice, "Give each task its name"))
        if not names:
            raise StreamError(describe(f"stream {self.name!r}", "has no task", names, "Name at least one task"))

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True)
class Score:
    """How one model does on one task's evaluation items.

    `value` is the first metric, higher is better, and fills the matrix; `outcomes` holds it per item (1.0 right, 0.0
    wrong; for `text` the mean log-likelihood of the item's tokens, nats), in the order of the items, so that two models
    are compared on the same items. `metrics` holds all the numbers, `low` and `high` are the
    95% interval of `value` (None where one item can't give any). `answers` holds what was answered to each item, cut
    (`everlearn.evaluation.answers.kept_text`); empty where nothing is answered, or answers aren't kept.
    """

    task: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    outcomes: tuple[float, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskResult:
    """One cell of the accuracy matrix: the score on `score.task` after task number `after` (-1: before any)."""

    seed: int
    after: int
    trained: str | None
    score: Score


@dataclass(frozen=True)
class Cost:
    """What learning one task took. Times in seconds, tokens as fed to the model (padding aside), memory in bytes.

    learning_rate, batch_size: of a step, numbers also where the recipe says auto; the rate is that at its peak.
    n_epochs: passes over the rows; fewer than planned where learning stopped early. best_epoch: the one, from 1, whose
    weights were kept, None where validation rows didn't choose. mean_loss: over the optimizer steps, penalties
    included, nats; None where there was no step. strategy_facts: what each strategy tells of its state after the task,
    JSON; see `Strategy.facts`.
    """

    train_s: float = 0.0
    eval_s: float = 0.0
    n_steps: int = 0
    n_tokens: int = 0
    peak_memory_bytes: int = 0
    learning_rate: float = 0.0
    batch_size: int = 0
    n_epochs: int = 0
    best_epoch: int | None = None
    mean_loss: float | None = None
    strategy_bytes: dict[str, int] = field(default_factory=dict)
    strategy_facts: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Examples:
    """Training rows of one task."""

    task: Task
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Group:
    """Examples that are drawn from together. `ratio`: rows of this group per row of the mixture's first group.

    `loader`: of the first group, where a data loader of the user's draws the batches of its one part.
    `by_row`: each row counts in the loss as much as one of the first group's does on average, however many targets it
    has; else each target counts as much as one of the first group's. See `everlearn.learners.weighing`.
    """

    parts: tuple[Examples, ...]
    ratio: float = 1.0
    by_row: bool = False
    loader: Loader | None = None

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


@dataclass(frozen=True)
class Mixture:
    """What a task is trained on. An epoch is one pass over the first group; each batch takes the others by ratio."""

    groups: tuple[Group, ...]

    @classmethod
    def of(cls, task: Task) -> "Mixture":
        """Return the mixture of nothing but the task's own training rows."""
        return cls((Group((Examples(task, task.train),), loader=task.loader),))


@dataclass
class Outputs:
    """What a model predicts on one batch, at the positions that have a target, one line each.

    logits: [n_items, n_classes], float; targets: [n_items], int64 (float for regression);
    owners: [n_items], int64: the batch row that each item belongs to.
    binary: whether targets are 1.0 or 0.0 for each class, [n_items, n_classes].
    past: logits [n_items, n_classes of the head] by the heads of earlier tasks, where they were asked for.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    past: list[torch.Tensor] = field(default_factory=list)
    binary: bool = False

    @property
    def family(self) -> Family:
        """How an answer is distributed given the logits: one of the classes; each class there or not, by itself; or
        numbers of unit variance around the logits."""  # fmt: skip
        if self.binary:
            return "bernoulli"
        return "normal" if self.targets.is_floating_point() else "categorical"

    def at(self, chosen: torch.Tensor) -> "Outputs":
        """Return those of the chosen items, without what earlier heads answer. chosen: bool [n_items]."""
        return Outputs(self.logits[chosen], self.targets[chosen], self.owners[chosen], binary=self.binary)


@dataclass(frozen=True)
class Episode:
    """One row, a problem or a labelled one, and what became of it. `loss`: mean over the right answer's targets before
    the step, nats; with steps, over theirs as well.

    `before`: what was answered before it was learned: a text, a label, a list of tags or a number; None before any was
    known. `right_before`: whether that is right; of tags the share that is, of numbers None. `after` and `right_after`
    are None where the learner doesn't answer again. `seconds`: from the row to the end, its share of those learned with
    it.
    """

    row: Row
    before: Any
    right_before: float | None
    loss: float
    learning_rate: float
    after: Any
    right_after: float | None
    seconds: float


@dataclass
class Step:
    """One optimizer step as strategies see it. `batch`, `rows`, `outputs` and `weights` change with each micro-batch.

    The first `n_new` rows of the batch are of the mixture's first group: the task's own; what is mixed in follows.
    rows: (number of the group, row within the group's parts laid end to end) of each row of the batch, in its order.
    by_row: numbers of the mixture's groups whose rows weigh alike.
    weights: how much each item counts in the batch's loss, mean 1 over the step [n_items]; None where all count alike.
    gradient_norm: of all of `params` before clipping; None where none is taken.
    """

    run: Any  # everlearn.way.Run; named Any because types.py stands below way.py
    task: Task
    params: dict[str, torch.nn.Parameter]  # the trainable ones
    index: int = 0  # optimizer steps done in this task
    n_steps: int = 0  # optimizer steps that the task was planned for
    learning_rate: float = 0.0
    batch: dict[str, torch.Tensor] = field(default_factory=dict)
    rows: list[tuple[int, int]] = field(default_factory=list)
    outputs: Outputs | None = None
    by_row: frozenset[int] = frozenset()
    weights: torch.Tensor | None = None
    gradient_norm: torch.Tensor | None = None

    @property
    def n_new(self) -> int:
        """How many rows of the batch are the task's own."""
        return sum(group == 0 for group, _ in self.rows)

    def items_of(self, groups: Collection[int]) -> torch.Tensor:
        """Return which items of the batch are of rows of these groups of the mixture: bool [n_items]."""
        of_row = torch.tensor([group in groups for group, _ in self.rows])
        return of_row.to(self.outputs.owners.device)[self.outputs.owners]

    def total(self, values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Return the sum of values [n_chosen] of the chosen items, bool [n_items], each times the weight of its item.

        Divided by the number of all items of the batch, it is what they add to the batch's loss.
        """
        return values.sum() if self.weights is None else (self.weights[chosen] * values).sum()

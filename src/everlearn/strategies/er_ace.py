"""Experience replay with asymmetric cross-entropy: new rows don't push the classes of earlier tasks down."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_choice, check_number
from everlearn.learners.loader import row_batches
from everlearn.memory.rows import Memory, add_by_reservoir, bound_reservoir, parts
from everlearn.models.objectives import IGNORED
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import NEEDS_TARGETS, Strategy, learned
from everlearn.types import Group, Mixture, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_REASON = "all earlier data is trained on, so there is nothing left to replay"


def log_mass_without(logits: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the log of the probability that is left to all but the hidden classes [n], nats.

    Added to a cross-entropy over all classes, it makes that over the others: with m_c = 0 for hidden classes, else 1,
    -log(e^z_y / sum_c m_c e^z_c) = -log(e^z_y / sum_c e^z_c) + log(sum_c m_c e^z_c / sum_c e^z_c).

    Args:
        logits: [n, n_classes]. hidden: columns [n_hidden], int64.
    """
    logits = logits.float()
    return logits.index_fill(1, hidden, -torch.inf).logsumexp(1) - logits.logsumexp(1)


def classes_of(run: "Run", task: Task) -> torch.Tensor:
    """Return the output columns that a task's own targets use, ascending: of a language model, tokens.

    None where targets are real numbers, or where each task answers among its own classes only.
    """
    none = torch.zeros(0, dtype=torch.long)
    if run.model.kind in ("classify", "tag") and run.model.adapters.head_mode == "task":
        return none
    found = none
    for _, batch in row_batches(run.model.objective, task.train, task, 1000):
        targets = batch["y"] if "y" in batch else batch["labels"]
        if "allowed" in batch or targets.is_floating_point():
            return none
        found = torch.cat([found, targets[targets != IGNORED]]).unique()
    return found


@register("strategy", "er_ace")
@dataclass
class ERACE(Strategy):
    """Replay; on the task's own rows, leave the classes of earlier tasks that it doesn't have out of the softmax.

    New classes then find their place beside the old ones without pushing these down; old rows compete with all.
    For language models classes are tokens: hidden are those that earlier tasks' answers used and the task's own don't.
    The other tokens stay, since the model must learn not to say them. So it acts where tasks answer in different
    words; where nearly all tokens are shared it is replay, as it is with a head for each task.

    Args:
        capacity: rows kept over all tasks, a uniform sample of all rows seen (reservoir). Where it is lowered, rows
            over it are let go before the next task begins, drawn uniformly; where it is raised, later rows are taken at
            the rate at which earlier ones are held, until it is full.
        ratio: old rows in a batch for each new row.
        weigh_by: row, so that in a step each old row counts in the loss as much as a new one does on average, whatever
            their lengths; or token, so that each old target counts as much as a new one.

    Cost: that of replay, and one sum over the logits of the new rows; encodes each task's rows once more.

    Source: Caccia et al. 2022, arXiv 2104.05025, L_ace of ER-ACE.
    Departs: C_curr is the classes of the task's rows, not of each batch's, so that the result doesn't change with
    accumulation or processes; classes that no task had yet compete too; the reservoir is filled at the end of a task;
    the two means are weighed by their rows, which at ratio 1 halves their sum.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    capacity: int = 500
    ratio: float = 1.0
    weigh_by: str = "row"

    memory_: Memory = learned(dict)
    n_seen_: int = learned(int)
    own_: torch.Tensor = learned(lambda: torch.zeros(0, dtype=torch.long))  # classes of the present task
    seen_: torch.Tensor = learned(lambda: torch.zeros(0, dtype=torch.long))  # classes of the tasks before

    unsuited: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("numbers", "several_labels"), "it leaves classes out of a softmax, and there is none"),
        "online": "it must know a task's answers beforehand",
        "preferences": NEEDS_TARGETS,
        "rollouts": NEEDS_TARGETS,
    }
    neutral: ClassVar[dict] = {"ratio": 0.0}
    conflicts: ClassVar[dict[str, str]] = {
        "joint": _REASON,
        "cumulative": _REASON,
        "sdft": "er_ace lowers the loss of the task's own rows, which sdft takes out: no bottom would be left",
    }

    def __post_init__(self) -> None:
        check_number("er_ace.capacity", self.capacity, low=0)
        check_number("er_ace.ratio", self.ratio, low=0)
        check_choice("er_ace.weigh_by", self.weigh_by, ("row", "token"))
        self._hidden: torch.Tensor | None = None

    def begin_task(self, run: "Run", task: Task) -> None:
        generator = generator_for(run.seed, "er_ace", "bound", run.position, task.name)
        self.memory_, self.n_seen_ = bound_reservoir(self.memory_, self.n_seen_, self.capacity, generator)
        self.own_ = classes_of(run, task)

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        kept = parts(self.memory_, run.tasks) if self.ratio > 0 else ()
        hidden = self.seen_[~torch.isin(self.seen_, self.own_)]
        self._hidden = hidden.to(run.accelerator.device) if kept and len(hidden) else None
        added = Group(kept, self.ratio, self.weigh_by == "row")
        return Mixture((*mixture.groups, added)) if kept else mixture

    def penalty(self, step: Step) -> torch.Tensor | None:
        if self._hidden is None:
            return None
        own = step.outputs.owners < step.n_new
        return step.total(log_mass_without(step.outputs.logits[own], self._hidden), own) / len(own)

    def end_task(self, run: "Run", task: Task) -> None:
        generator = generator_for(run.seed, "er_ace", run.position, task.name)
        self.memory_ = add_by_reservoir(self.memory_, task.name, task.train, self.n_seen_, self.capacity, generator)
        self.n_seen_ += len(task.train)
        self.seen_ = torch.cat([self.seen_, self.own_]).unique()

"""Experience replay: some rows of the past are trained on again beside the new ones."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from everlearn.errors import check_number
from everlearn.memory.rows import Memory, add_by_reservoir, add_sample, parts
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import Strategy, learned
from everlearn.types import Group, Mixture, Task

if TYPE_CHECKING:
    from everlearn.runs import Run


@register("strategy", "replay")
@dataclass
class Replay(Strategy):
    """Keep a memory of training rows and mix them into every batch: one forward pass over old and new together.

    Args:
        capacity: rows kept over all tasks, a uniform sample of all rows seen (reservoir).
        fraction: instead, this share of each task's rows (at least one).
        ratio: old rows in a batch for each new row; 1.0 makes a batch half old, half new.

    Cost: (1 + ratio) times plain training from the second task on; keeps the rows themselves.

    Source: Ratcliff 1990; reservoir: Chaudhry et al. 2019, arXiv 1902.10486, algorithm 2.
    Departs: the reservoir is filled at the end of a task, not at every step, which leaves its distribution unchanged.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    capacity: int = 500
    fraction: float | None = None
    ratio: float = 1.0

    memory_: Memory = learned(dict)
    n_seen_: int = learned(int)

    neutral: ClassVar[dict] = {"ratio": 0.0}

    def __post_init__(self) -> None:
        check_number("replay.capacity", self.capacity, low=0)
        check_number("replay.ratio", self.ratio, low=0)
        if self.fraction is not None:
            check_number("replay.fraction", self.fraction, above=0, high=1)

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        kept = parts(self.memory_, run.tasks)
        return Mixture((*mixture.groups, Group(kept, self.ratio))) if kept and self.ratio > 0 else mixture

    def end_task(self, run: "Run", task: Task) -> None:
        generator = generator_for(run.seed, "replay", run.position, task.name)
        if self.fraction is not None:
            n = max(1, round(self.fraction * len(task.train)))
            self.memory_ = add_sample(self.memory_, task.name, task.train, n, generator)
        else:
            self.memory_ = add_by_reservoir(self.memory_, task.name, task.train, self.n_seen_, self.capacity, generator)
        self.n_seen_ += len(task.train)

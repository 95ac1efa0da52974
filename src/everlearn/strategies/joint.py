"""Joint training on all tasks at once: what learning them one by one is measured against."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from everlearn.errors import ConfigError, describe
from everlearn.registry import register
from everlearn.strategy import MAKES_ROWS, Strategy, learned
from everlearn.types import Examples, Group, Mixture, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_REASON = "joint trains on all data at once, so there is nothing left to protect"
_LATER = "joint learns nothing at later tasks, so that what the other makes for them stays untrained"


@register("strategy", "joint")
@dataclass
class Joint(Strategy):
    """Train once on the rows of all tasks of the stream, shuffled together, at the first task; nothing at later ones.

    All rows of the accuracy matrix are then the same and backward transfer is 0. It needs the whole stream beforehand.
    Each target counts alike in the loss: of two tasks with as many rows, the one with longer answers counts more.

    Source: the usual upper baseline, "multi-task learning" (Caruana 1997). Reproduces: not applicable.
    """

    trained_: list = learned(list)  # names of the tasks that the one training went over

    on_shards: ClassVar[bool] = True
    unsuited: ClassVar[dict[str, str]] = {
        "online": "it learns from whole tasks, and problems come one by one",
        "trainer": MAKES_ROWS,
    }
    conflicts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("cumulative", "replay", "gem", "agem", "gpm", "ogd", "lwf", "merge"), _REASON),
        **dict.fromkeys(("l2", "ewc", "gamma_ewc", "si", "mas", "rwalk"), _REASON),
        **dict.fromkeys(("inclora", "olora", "inflora", "grow", "progressive_prompts"), _LATER),
        **dict.fromkeys(("packnet", "pnn", "hat", "separate"), _LATER),
    }

    def adapt_model(self, run: "Run", task: Task) -> None:
        for known in run.tasks.values():
            run.add_labels(known)
        if not self.trained_:
            self.trained_ = list(run.tasks)
        elif task.name not in self.trained_:
            way_out = "Use cumulative where tasks arrive one by one"
            raise ConfigError(describe("joint", "a task came after the joint training", task.name, way_out))

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        if run.learned:
            return Mixture((Group(()), *mixture.groups[1:]))
        return Mixture((Group(tuple(Examples(t, t.train) for t in run.tasks.values())), *mixture.groups[1:]))

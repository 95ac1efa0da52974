"""Cumulative training: each task is learned together with all the data of the tasks before."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from everlearn.errors import ConfigError, describe
from everlearn.registry import register
from everlearn.strategy import MAKES_ROWS, Strategy
from everlearn.types import Examples, Group, Mixture

if TYPE_CHECKING:
    from everlearn.way import Run

_REASON = "cumulative trains on all earlier data, so there is nothing left to replay or protect"


@register("strategy", "cumulative")
@dataclass
class Cumulative(Strategy):
    """Go on training on the rows of all tasks so far. Keeps all data: the cost grows with every task.

    Each target counts alike in the loss: of two tasks with as many rows, the one with longer answers counts more.

    Source: Lomonaco & Maltoni 2017 (CORe50), arXiv 1705.03550, "cumulative". Reproduces: not applicable.
    """

    on_shards: ClassVar[bool] = True
    rereads: ClassVar[bool] = True
    unsuited: ClassVar[dict[str, str]] = {
        "online": "it learns from whole tasks, and problems come one by one",
        "trainer": MAKES_ROWS,
    }
    conflicts: ClassVar[dict[str, str]] = dict.fromkeys(("joint", "replay", "agem", "gem"), _REASON)

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        past = [run.tasks[name] for name in run.past_tasks() if name != run.current]
        lost = [task.name for task in past if len(task.train) == 0]
        if lost:
            way_out = "Use replay, which keeps its own rows"
            raise ConfigError(describe("cumulative", "the training rows of earlier tasks were not kept", lost, way_out))
        first = Group((*mixture.groups[0].parts, *(Examples(task, task.train) for task in past)))
        return Mixture((first, *mixture.groups[1:]))

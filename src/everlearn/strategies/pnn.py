"""Progressive neural networks: a new column for each task, fed by the frozen columns of the tasks before."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from everlearn.models.columns import activate
from everlearn.models.isolation import freeze_shared
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.strategy import ADDS_LAYERS, Strategy, learned
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run

_NO_LORA = "its columns are LoRAs; a whole model a task is what `separate` keeps"


@register("strategy", "pnn")
@dataclass
class PNN(Strategy):
    """Give each task a column of new weights that hears of the frozen earlier columns through lateral connections.

    An MLP (h_k: hidden layer of column k): h_k = f(W h'_k + U relu(V [a_1 h'_1, ..., a_{k-1} h'_{k-1}])), h' the layer
    before. A model with LoRA: the columns are LoRAs, W x + s (B_k A_k x + sum_{j<k} g_j B_j A_j x), with a number g_j
    for each layer and earlier column, learned from 0. What an earlier task answers stays the same, bit for bit.

    Args:
        lateral: whether there are lateral connections; without them, columns know nothing of each other.

    Cost: a column for each task, which counts as kept; a step takes time for all columns, so the stream's cost grows
    with the square of the number of tasks, with small LoRAs hardly.

    Source: Rusu et al. 2016, arXiv 1606.04671, eq. 2. Departs: in an MLP no. In a transformer the columns are LoRAs,
    and an earlier one sees the new column's input, not its own: one forward pass. Biases and other parameters that
    columns share are frozen after the first task.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    lateral: bool = True

    columns_: dict = learned(dict)  # task name -> the column that answers for it
    n_columns_: int = learned(int)
    n_added_: int = learned(int)  # weights in the columns after the first
    added_bytes_: int = learned(int)

    isolates: ClassVar[bool] = True
    unsuited: ClassVar[dict[str, str]] = {
        "trainer": ADDS_LAYERS,
        "prompt": NO_LAYERS,
        "shared_head": "later tasks add classes to the head that all tasks answer by",
        "causal+full": _NO_LORA,
        "classify+full": _NO_LORA,
        "tag+full": _NO_LORA,
    }
    conflicts: ClassVar[dict[str, str]] = {
        "packnet": "both decide which weights a task learns",
        "inclora": "it lays LoRAs together that are columns here",
        "gdumb": "it starts each task from the first weights, those of earlier columns among them",
        "ema": "it puts back a column's trained weights after the column was scored by their average",
    }

    def adapt_model(self, run: "Run", task: Task) -> None:
        adapters = run.model.adapters
        if self.n_columns_ == 0:
            adapters.do("begin_columns")
            self.n_columns_ = int(bool(run.learned))  # what was learned without columns is the first one
        self.columns_ |= dict.fromkeys(run.learned_without(self), self.n_columns_ - 1)
        if self.n_columns_ > 0:
            before = {id(p) for p in adapters.network.parameters()}
            adapters.do("add_column", number=self.n_columns_, seed=run.seed, lateral=self.lateral)
            new = {name: p for name, p in adapters.trainable().items() if id(p) not in before}
            freeze_shared(adapters, task, kept=new)
            self.n_added_ += sum(p.numel() for p in new.values())
            self.added_bytes_ += sum(p.nbytes for p in new.values())
        self.columns_[task.name] = self.n_columns_
        self.n_columns_ += 1

    def before_eval(self, run: "Run", task: Task) -> None:
        latest = self.n_columns_ - 1
        if latest > 0:
            activate(run.model.network, self.columns_.get(task.name, latest))
            run.until_scored.callback(activate, run.model.network, latest)

    def facts(self) -> dict[str, Any]:
        return {"columns": self.n_columns_, "weights_added": self.n_added_}

    def state_bytes(self) -> int:
        return super().state_bytes() + self.added_bytes_

"""SEQ*: the backbone learns at the start of the stream and then stands still, as do the classifiers of old classes."""

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from everlearn.errors import check_number
from everlearn.models.adapters import Adapters
from everlearn.models.isolation import Held, freeze_shared, output_layer
from everlearn.registry import register
from everlearn.strategy import Strategy, learned
from everlearn.types import IGNORED, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_FROZEN = "it freezes the backbone after the first task, so that nothing is left for the other to work on"


@register("strategy", "seq_star")
@dataclass
class SeqStar(Strategy):
    """Warm the backbone up in the first task and freeze it; in each later task train the new classifier alone.

    Two of its four parts: the backbone is frozen after the warm-up, and old classifiers are. Left out: cosine
    classifiers (for class-incremental learning without old data) and classifiers allotted beforehand (optional).

    Args:
        warmup_share: share of the first task's steps in which the backbone learns too; 1 is the whole task.

    Cost: less than plain training from the second task on; keeps nothing.

    Source: Zheng et al. 2024, "Learn or Recall?", arXiv 2312.07887, SEQ*. Departs: linear classifiers throughout;
    the warm-up is a share of the steps, on the task's own loss, in place of 1 to 3 epochs. Parameters that the
    checkpoint lacked count as backbone.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    warmup_share: float = 0.5

    columns_: dict = learned(dict)  # task name -> outputs of the classes that its rows have

    plans_steps: ClassVar[bool] = True
    unsuited: ClassVar[dict[str, str]] = {
        "causal": "it works on classifiers, and a language model has none",
        "tensor+lora": "LoRA leaves a plain module no output layer to train",
    }
    conflicts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("packnet", "pnn", "hat", "ogd", "aflora", "inclora", "inflora", "olora"), _FROZEN),
        "frozen": "the backbone can't learn at first and never",
    }

    def __post_init__(self) -> None:
        check_number("seq_star.warmup_share", self.warmup_share, low=0, high=1)
        self._held: Held | None = None
        self._backbone: list[nn.Parameter] | None = None

    def adapt_model(self, run: "Run", task: Task) -> None:
        self._held = self._backbone = None
        if self.columns_:
            freeze_shared(run.model.adapters, task, kept=self._rows(run.model.adapters, task))

    def edit_grads(self, step: Step) -> None:
        if self._held is None:
            adapters = step.run.model.adapters
            rows = self._rows(adapters, step.task) if self.columns_ else {}
            shapes = {name: (-1, *[1] * (step.params[name].ndim - 1)) for name in rows if name in step.params}
            masks = {name: ~rows[name].view(shape).expand_as(step.params[name]) for name, shape in shapes.items()}
            self._held = Held.of(step.params, masks)
            heads = adapters.output_parameters()
            self._backbone = [p for p in step.params.values() if id(p) not in heads]
        self._held.drop_gradients(step.params)
        if step.index >= round(self.warmup_share * step.n_steps):
            for parameter in self._backbone:
                parameter.grad = None  # the optimizer leaves it alone, weight decay and all

    def after_step(self, step: Step) -> None:
        self._held.put_back(step.params)

    def end_task(self, run: "Run", task: Task) -> None:
        self.columns_[task.name] = _columns(run.model.adapters, task)
        self._held = self._backbone = None

    def _rows(self, adapters: Adapters, task: Task) -> dict[str, torch.Tensor]:
        """Return which rows of a shared output layer learn, {parameter name: bool [rows]}; none where each task has
        its own head. Those of the task's classes that no other task had do, or of all its classes if there are none.
        """
        if adapters.head is not None and adapters.head_mode == "task":
            return {}
        layers = [output_layer(adapters)] if adapters.head is None else list(adapters.head.blocks)
        starts = [0, *accumulate(layer.out_features for layer in layers)]
        old = {column for name, columns in self.columns_.items() if name != task.name for column in columns}
        own = _columns(adapters, task) or list(range(starts[-1]))
        moving = torch.zeros(starts[-1], dtype=torch.bool)
        moving[[column for column in own if column not in old] or own] = True
        names = {id(p): name for name, p in adapters.network.named_parameters()}
        found = {}
        for start, layer in zip(starts, layers, strict=False):
            rows = moving[start : start + layer.out_features]
            found |= {names[id(p)]: rows.to(p.device) for p in layer.parameters() if rows.any()}
        return found


def _columns(adapters: Adapters, task: Task) -> list[int]:
    """Return the output columns of the classes in a task's training rows; none where targets are real numbers."""
    if task.kind == "score":
        classes: set[int] = set()
    elif task.kind == "tensor":
        targets = task.targets(task.train)
        classes = set() if targets.is_floating_point() else set(targets.tolist())
    elif task.kind == "multilabel":
        classes = {label for row in task.train for label in row["labels"]}
    elif task.kind == "tag":
        classes = {tag for row in task.train for tag in row["tags"]} - {IGNORED}
    else:
        classes = {row["label"] for row in task.train}
    return sorted(adapters.columns[task.labels[i]] if task.labels else i for i in classes)

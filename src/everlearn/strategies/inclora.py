"""Incremental LoRA: each task learns a LoRA of its own, on top of the frozen ones of the tasks before."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from everlearn.models.lora import next_lora
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.strategy import ADDS_LAYERS, Strategy
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run


@register("strategy", "inclora")
@dataclass
class IncLoRA(Strategy):
    """Begin a new LoRA with every task and freeze the earlier ones: W + sum_i s B_i A_i, of which only the last learns.

    All are summed for every task, so that no task needs to be named when the model is used, and earlier tasks can
    still be forgotten.

    Cost: rank * (inputs + outputs) numbers a layer and task; a step costs little more than with one LoRA.

    Source: Wang et al. 2023 (O-LoRA), arXiv 2310.14152, baseline "IncLoRA". Departs: no.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    unsuited: ClassVar[dict[str, str]] = {
        "trainer": ADDS_LAYERS,
        "full": "there is no LoRA to begin anew: all weights are trained",
        "new_tokens": "peft trains new tokens' embeddings in one LoRA only; use a model that has the chat's marks",
        "prompt": NO_LAYERS,
    }

    def adapt_model(self, run: "Run", task: Task) -> None:
        if run.learned:
            next_lora(run)

"""Frozen: only the heads learn, on features that never change."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from everlearn.registry import register
from everlearn.strategy import Strategy
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run

_NOTHING_LEFT = "it freezes all but the heads, so that nothing is left for the other to work on"


@register("strategy", "frozen")
@dataclass
class Frozen(Strategy):
    """Train the output layer alone: how far the features of the start carry, and the floor for any method that moves
    them.

    Cost: less than plain training; keeps nothing.

    Source: linear probing, a usual baseline (Alain & Bengio 2016, arXiv 1610.01644). Departs: the heads learn in the
    stream's order. Parameters that the checkpoint lacked, such as a pooler, stay as they were drawn.
    Reproduces: not applicable.
    """

    unsuited: ClassVar[dict[str, str]] = {
        "causal": "a language model has no head of its own: nothing would be left to train",
        "tensor+lora": "LoRA leaves a plain module no output layer to train",
    }
    conflicts: ClassVar[dict[str, str]] = dict.fromkeys(
        ("packnet", "pnn", "hat", "ogd", "osf", "aflora", "inclora", "inflora", "olora"), _NOTHING_LEFT
    )

    def adapt_model(self, run: "Run", task: Task) -> None:
        adapters = run.model.adapters
        heads = adapters.output_parameters()
        others = [name for name, p in adapters.trainable().items() if id(p) not in heads]
        if others:
            adapters.do("freeze", parameters=others)

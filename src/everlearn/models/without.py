"""A model without what was added to it: as its base answers, or with its adapter off."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from everlearn.models.prompts import prompts_of
from everlearn.shards import whole

if TYPE_CHECKING:
    from everlearn.models.load import Model


@contextmanager
def adapter_off(model: "Model") -> Iterator[None]:
    """Let a model with a LoRA or a prefix answer without it until the block ends."""
    flags = [(p, p.requires_grad) for p in model.network.parameters()]
    try:
        with model.network.disable_adapter():
            yield
    finally:
        for parameter, flag in flags:  # peft trains all that is active once it is back
            parameter.requires_grad_(flag)


@contextmanager
def base_of(model: "Model") -> Iterator[None]:
    """Let a model answer as its base does, in evaluation mode and without gradients, until the block ends.

    What is added to the base (LoRA, soft prompt, prefix) is left out; weights of the base's own that are trained
    (adapter `full`) stay as they are. Of a peft model that was handed in, its own adapter is part of the base.
    """
    prompts, added = prompts_of(model.network), {operation for operation, _ in model.adapters.log}
    without = adapter_off(model) if added & {"lora", "prefix"} else nullcontext()
    try:
        if prompts is not None:
            prompts.left_out = True
        with torch.no_grad(), model.evaluating(), whole(model.network), without:
            yield
    finally:
        if prompts is not None:
            prompts.left_out = False

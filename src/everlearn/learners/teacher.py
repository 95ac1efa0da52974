"""A teacher that is the model itself: with other weights, or as it was before anything was added to it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from everlearn.models.prompts import prompts_of
from everlearn.shards import whole

if TYPE_CHECKING:
    from everlearn.models.load import Model
    from everlearn.way import Run


@contextmanager
def as_teacher(run: "Run", weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Let the model answer with other weights, in evaluation mode and without gradients, until the block ends.

    Args:
        weights: {parameter name: value}; those left out stay as they are.
    """
    device = run.accelerator.device.type
    autocast: AbstractContextManager = nullcontext()
    if torch.is_autocast_enabled(device):
        # it keeps cast copies of the weights by name, so the teacher's pass must not use that cache
        autocast = torch.autocast(device, torch.get_autocast_dtype(device), cache_enabled=False)
    network = run.model.network
    with torch.no_grad(), run.model.evaluating(), whole(network), run.model.adapters.using(weights), autocast:
        yield


def as_base(run: "Run") -> AbstractContextManager[None]:
    """Let the run's model answer as its base does; see `base_of`."""
    return base_of(run.model)


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

"""A teacher that is the model itself: with other weights, or as it was before anything was added to it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from everlearn.models.without import base_of
from everlearn.shards import whole

if TYPE_CHECKING:
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

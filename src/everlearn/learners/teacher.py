"""A teacher that is the model itself with other weights."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

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
    with torch.no_grad(), run.model.evaluating(), run.model.adapters.using(weights), autocast:
        yield

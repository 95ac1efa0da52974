"""Running statistics of norms for weights that no step was taken with: averaged or merged ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from everlearn.models.adapters import Adapters
from everlearn.models.objectives import to_device
from everlearn.seeds import generator_for
from everlearn.streams.sampling import select_rows
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run


def moving_norms(adapters: Adapters) -> dict[str, nn.Module]:
    """Return the network's batch norms whose running statistics training moves, by name."""
    if any(operation == "hold_statistics" for operation, _ in adapters.log):
        return {}
    found = adapters.network.named_modules()
    return {
        name: module
        for name, module in found
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    }


def statistics_of(adapters: Adapters) -> dict[str, torch.Tensor]:
    """Return the buffers of the moving norms, named as `Adapters.tensors` names them."""
    return {
        f"buffer:{name}.{buffer}" if name else f"buffer:{buffer}": tensor
        for name, norm in moving_norms(adapters).items()
        for buffer, tensor in norm.named_buffers()
    }


@torch.no_grad()
def renew_statistics(run: "Run", task: Task, batch_size: int) -> None:
    """Measure the running statistics anew for the weights as they are, over the task's own training rows.

    They become the mean over batches, as `torch.optim.swa_utils.update_bn` computes it; the rows come in an order
    drawn by the seed, and those that fill no batch are left out, unless there is none. All other modules work as in
    evaluation. Every process goes over all rows, so that all get the same.

    Cost: a forward pass over the rows where the network has batch norms, nothing otherwise.
    Source: Izmailov et al. 2018, arXiv 1803.05407, section 3.2.
    """
    norms = list(moving_norms(run.model.adapters).values())
    if not norms or len(task.train) < 2:  # of one row there is no variance
        return
    size = min(batch_size, len(task.train))
    generator = generator_for(run.seed, "statistics", run.position, task.name)
    order = torch.randperm(len(task.train), generator=generator).tolist()
    objective = run.model.objective
    with run.model.evaluating(), _measuring(norms), run.accelerator.autocast():
        for low in range(0, len(order) - size + 1, size):
            features = objective.encode(select_rows(task.train, order[low : low + size]), task)
            batch = objective.collate(objective.take(features, list(range(size))))
            objective.forward(run.model.network, to_device(batch, run.accelerator.device))


@contextmanager
def _measuring(norms: list[nn.Module]) -> Iterator[None]:
    """Let norms average their batches' statistics from none on, and nothing else."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # without a momentum, all batches weigh alike
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False

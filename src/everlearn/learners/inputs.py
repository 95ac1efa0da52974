"""What goes into the layers of a network on rows of a task."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from everlearn.learners.loader import row_batches
from everlearn.models.objectives import to_device
from everlearn.types import Rows, Task

if TYPE_CHECKING:
    from everlearn.way import Run


def input_moments(
    run: "Run", task: Task, rows: Rows, layers: dict[nn.Module, str], n_inputs: dict[str, int], batch_size: int
) -> dict[str, torch.Tensor]:
    """Return {name: sum over a layer's inputs x of x x', float64 [in, in]}; layers of one name are added up.

    All rows' tokens count, padding aside. The network is in evaluation mode meanwhile. The sums are over all processes.

    Args:
        layers: {layer: name}; n_inputs: {name: length of an input}.

    Cost: a forward pass over the rows, and n_inputs^2 operations a token and layer.
    """
    device = run.accelerator.device
    moments = {name: torch.zeros(n, n, dtype=torch.float64, device=device) for name, n in n_inputs.items()}
    mask: torch.Tensor | None = None

    def watch(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].detach()
        x = x[mask] if mask is not None and x.shape[:-1] == mask.shape else x.reshape(-1, x.shape[-1])
        x = x.double()  # some inputs have a direction with a million times the energy of the others
        moments[layers[layer]].addmm_(x.T, x)

    handles = [layer.register_forward_pre_hook(watch) for layer in layers]
    shared_out = run.processes.share
    try:
        with torch.no_grad(), run.model.evaluating():
            for _, batch in row_batches(run.model.objective, rows, task, batch_size, **shared_out):
                batch = to_device(batch, device)
                mask = batch["attention_mask"].flatten(0, -2).bool() if "attention_mask" in batch else None
                run.model.objective.forward(run.model.network, batch)
    finally:
        for handle in handles:
            handle.remove()
    run.processes.all_reduce(list(moments.values()))
    return moments

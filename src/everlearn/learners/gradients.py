"""Gradients outside the loop's own: of a memory, say; and sums over processes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.distributed
from torch import nn

from everlearn.models.objectives import Batch, mean_loss

if TYPE_CHECKING:
    from everlearn.runs import Run


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch; on the CPU this is free."""
    if device.type == "cpu":
        return batch
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def sum_over_processes(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its sum over processes; one that no process has stays None.

    Cost: two all-reduces, one of a flag per parameter and one of all gradients laid end to end.
    """
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    torch.distributed.all_reduce(present)
    used = [p for p, n in zip(parameters, present.tolist(), strict=True) if n]
    if not used:
        return
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten() for p in used])
    torch.distributed.all_reduce(flat)
    for parameter, piece in zip(used, flat.split([p.numel() for p in used]), strict=True):
        parameter.grad.copy_(piece.view_as(parameter))


def reference_gradients(
    run: "Run", parameters: list[nn.Parameter], batches: Iterable[Batch]
) -> list[torch.Tensor | None]:
    """Return the gradients of the mean loss over all targets of `batches`, leaving the present `.grad` as they are.

    Each process passes its own share of the batches; the result is over all of them. It uses `.backward()`, not
    `torch.autograd.grad`, so that it also works on wrapped models.
    """
    kept = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    batches = [batch for batch in batches if batch]
    counts = [run.model.objective.n_items(batch) for batch in batches]
    total = run.sum(sum(counts))
    for batch, count in zip(batches, counts, strict=True):
        with run.accelerator.autocast():
            outputs = run.model.objective.forward(run.model.network, to_device(batch, run.accelerator.device))
            loss = mean_loss(outputs)
        if loss.requires_grad:  # old rows may reach nothing that still learns: a frozen backbone and frozen heads
            (loss * (count / total)).backward()
    if run.world_size > 1:
        sum_over_processes(parameters)
    gradients = [parameter.grad for parameter in parameters]
    for parameter, gradient in zip(parameters, kept, strict=True):
        parameter.grad = gradient
    return gradients

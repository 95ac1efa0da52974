"""Gradients outside the loop's own: of a memory, say; and what processes share: sums of gradients, buffers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed
from torch import nn

from everlearn.models.objectives import Batch, mean_loss, to_device

if TYPE_CHECKING:
    from everlearn.way import Run


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


_AVERAGED = ("running_mean", "running_var")  # of layers that normalise by the statistics of a batch


@dataclass(frozen=True)
class SharedBuffers:
    """The buffers that training may move, which all processes are to hold alike: (module, name of the buffer).

    averaged: running statistics of a batch; others: whatever else the checkpoint holds.
    """

    averaged: tuple[tuple[nn.Module, str], ...]
    others: tuple[tuple[nn.Module, str], ...]

    @classmethod
    def of(cls, network: nn.Module) -> "SharedBuffers":
        """Find them; those that are not kept in a checkpoint, such as tables of positions, stay out."""
        kept = set(network.state_dict())
        averaged, others = [], []
        for path, _ in network.named_buffers():
            if path in kept:
                parent, _, name = path.rpartition(".")
                (averaged if name in _AVERAGED else others).append((network.get_submodule(parent), name))
        return cls(tuple(averaged), tuple(others))

    def share(self) -> None:
        """Average the running statistics over the processes; of all other buffers take the first process's.

        Each process normalises its own rows by their statistics, as in DistributedDataParallel, so that a step is not
        that of one process on all the rows. Running means are the same, for shares of one size; running variances lack
        the variance between the processes' means.

        Cost: an all-reduce of all running statistics laid end to end, and a broadcast of each other buffer.
        """
        statistics = [module.get_buffer(name) for module, name in self.averaged]
        if statistics:
            flat = torch.cat([tensor.flatten().float() for tensor in statistics])
            torch.distributed.all_reduce(flat)
            flat /= torch.distributed.get_world_size()
            for tensor, piece in zip(statistics, flat.split([t.numel() for t in statistics]), strict=True):
                tensor.copy_(piece.view_as(tensor))
        for module, name in self.others:
            torch.distributed.broadcast(module.get_buffer(name), 0)


SCALE_STEP = 16.0  # by which a scale that makes gradients overflow is lowered


def at_loss_scale(
    run: "Run", compute: Callable[[float], list[torch.Tensor | None]], scale: float | None = None
) -> list[torch.Tensor | None]:
    """Return gradients as `compute` finds them for a loss that is multiplied by a scale, divided by it again.

    In fp16 gradients below 6e-8 are 0 on their way back through the layers. The loop's own are kept above by the scale
    of its GradScaler; this does the same for all others. Where they overflow it takes a smaller scale, and again. In
    other precisions the scale is 1 and nothing is done.

    Args:
        compute: scale -> gradients, float32, which this may change.
        scale: to begin with; by default that of the loop.
    """
    if scale is None:
        scaler = run.accelerator.scaler
        scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
    found = compute(scale)
    if scale == 1.0:
        return found
    present = [gradient for gradient in found if gradient is not None]
    if all_finite(present):
        for gradient in present:
            gradient.div_(scale)
        return found
    return at_loss_scale(run, compute, max(1.0, scale / SCALE_STEP))


def all_finite(tensors: list[torch.Tensor]) -> bool:
    """Tell whether no entry of the tensors is infinite or NaN. On a GPU this waits for it."""
    return all(torch.stack([tensor.isfinite().all() for tensor in tensors]).tolist()) if tensors else True


def reference_gradients(
    run: "Run", parameters: list[nn.Parameter], batches: Iterable[Batch]
) -> list[torch.Tensor | None]:
    """Return the gradients of the mean loss over all targets of `batches`, leaving the present `.grad` as they are.

    Each process passes its own share of the batches; the result is over all of them. It uses `.backward()`, not
    `torch.autograd.grad`, so that it also works on wrapped models.
    """
    kept = [parameter.grad for parameter in parameters]
    batches = [batch for batch in batches if batch]
    counts = [run.model.objective.n_items(batch) for batch in batches]
    total = run.processes.sum(sum(counts))

    def compute(scale: float) -> list[torch.Tensor | None]:
        for parameter in parameters:
            parameter.grad = None
        for batch, count in zip(batches, counts, strict=True):
            with run.accelerator.autocast():
                outputs = run.model.objective.forward(run.model.network, to_device(batch, run.accelerator.device))
                loss = mean_loss(outputs)
            if loss.requires_grad:  # old rows may reach nothing that still learns: a frozen backbone and frozen heads
                (loss * (scale * count / total)).backward()
        if run.processes.size > 1:
            sum_over_processes(parameters)
        return [parameter.grad for parameter in parameters]

    gradients = at_loss_scale(run, compute)
    for parameter, gradient in zip(parameters, kept, strict=True):
        parameter.grad = gradient
    return gradients

"""Weights of which each process holds a part, by torch's fully_shard (FSDP2); whole where that is asked for.

Accelerate's own plugin for it wants a GPU; torch's function beneath works on any device, and so here on all of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(network: nn.Module, device: torch.device) -> None:
    """Let each process keep a part of a network's weights, which all of them hold alike now.

    A layer's weights are put together while it computes, forward and backward, and its gradients are summed over the
    processes as they are laid back. All processes must call the network equally often, but within `whole`.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in [*_layers(network), network]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # the only one that gloo has


def is_sharded(network: nn.Module) -> bool:
    """Tell whether processes keep parts of a network's weights, whole as they may be just now."""
    return isinstance(network, FSDPModule)


@contextmanager
def whole(network: nn.Module) -> Iterator[None]:
    """Let each process hold all weights of a network until the block ends, for passes without gradients.

    Processes may call it as often as each likes meanwhile; its parameters are plain ones. Nothing is done to a network
    that isn't sharded.

    Cost: an all-gather of all weights, and their memory.
    """
    if not isinstance(next(network.parameters(), None), DTensor):
        yield
        return
    modules = [module for module in network.modules() if isinstance(module, FSDPModule)]
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
            module.set_reshard_after_forward(True, recurse=False)


def full(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor put together from its parts; all processes must ask. Others are returned as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor; others are returned as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def summed(numbers: list[float], like: Iterable[torch.Tensor]) -> list[float]:
    """Return the sums over processes of numbers that are of their parts of such tensors; of whole ones as they are."""
    tensor = next(iter(like), None)
    if not isinstance(tensor, DTensor):
        return numbers
    total = torch.tensor(numbers, dtype=torch.float64, device=tensor.device)
    torch.distributed.all_reduce(total)
    return total.tolist()


def gathered(value: Any) -> Any:
    """Return nested dicts and lists with all tensors put together, on the CPU."""
    if isinstance(value, DTensor):
        return value.detach().full_tensor().cpu()
    if isinstance(value, Mapping):
        return {key: gathered(item) for key, item in value.items()}
    return [gathered(item) for item in value] if isinstance(value, list | tuple) else value


def laid_out(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return values, which all processes hold alike, in the parts in which `like` is held."""
    if not isinstance(like, DTensor) or isinstance(values, DTensor):
        return values
    return distribute_tensor(values.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Bring what an optimizer was given to remember into the parts in which its parameters are held."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = laid_out(value, parameter)


def _layers(network: nn.Module) -> list[nn.Module]:
    """Return the modules of a network's lists of modules: a language model's blocks."""
    stacks = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    return [layer for stack in stacks for layer in stack if next(layer.parameters(), None) is not None]

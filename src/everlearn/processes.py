"""What several processes do together; alone, nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import Accelerator

from everlearn.errors import EverlearnError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of one run, as `torchrun` started them; without it there is one."""

    accelerator: Accelerator
    sharded: bool = False  # each holds but a part of the weights

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.accelerator.process_index

    @property
    def size(self) -> int:
        """How many there are."""
        return self.accelerator.num_processes

    @property
    def share(self) -> dict[str, int]:
        """Which part of the rows is this process's, as functions that divide them take it."""
        return {"rank": self.rank, "world_size": self.size}

    def sum(self, number: float) -> float:
        """Return the sum of a number over processes."""
        if self.size == 1:
            return number
        total = torch.tensor([number], dtype=torch.float64, device=self.accelerator.device)
        torch.distributed.all_reduce(total)
        return total.item()

    def all_reduce(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor by its sum over processes."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def gather(self, value: Any) -> list[Any]:
        """Return each process's value, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def from_first(self, compute: Callable[[], T]) -> T:
        """Return what `compute` returns on the first process, which alone calls it; its errors are raised on all."""
        if self.size == 1:
            return compute()
        told: list[Any] = [None, None]
        if self.rank == 0:
            try:
                told[0] = compute()
            except EverlearnError as error:
                told[1] = error
        torch.distributed.broadcast_object_list(told, 0)
        if told[1] is not None:
            raise told[1]
        return told[0]

    def first_decides(self, decision: bool) -> bool:
        """Return what the first process decides, such as by its clock: all must decide alike."""
        return bool(self.sum(int(decision and self.rank == 0)))

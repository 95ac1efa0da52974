"""What a scoring gives, and how items are shared out over processes, the same batches however many there are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed
from accelerate import Accelerator

from everlearn.learners.loader import feature_batches
from everlearn.models.load import Model
from everlearn.models.objectives import Features, to_device


@dataclass(frozen=True)
class Result:
    """One metric: its value, an outcome per item; where it is not their mean, its value without each item; and what was
    answered to each, where that can be told in words."""  # fmt: skip

    value: float
    outcomes: list[float]
    without: list[float] | None = None
    answers: Sequence[str] = ()


@dataclass(frozen=True)
class Share:
    """Work on items split over processes by batches, each the same however many processes there are."""

    accelerator: Accelerator
    batch_size: int

    def over(self, items: Sequence[Any], work: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        """Return `work` of each batch of items, put together in the order of the items."""
        done = {}
        for number, low in enumerate(range(0, len(items), self.batch_size)):
            if number % self.accelerator.num_processes == self.accelerator.process_index:
                done[number] = work(items[low : low + self.batch_size])
        return self._together(done)

    def over_batches(self, model: Model, features: Features, work: Callable[[Any, int], list[Any]]) -> list[Any]:
        """Return `work(outputs, batch size)` of each batch of features, in their order."""
        done = {}
        processes = {"rank": self.accelerator.process_index, "world_size": self.accelerator.num_processes}
        for indices, batch in feature_batches(model.objective, features, self.batch_size, **processes):
            outputs = model.objective.forward(model.network, to_device(batch, self.accelerator.device))
            done[indices[0]] = work(outputs, len(indices))
        return self._together(done)

    def _together(self, done: dict[int, list[Any]]) -> list[Any]:
        if self.accelerator.num_processes > 1:
            everyone: list[Any] = [None] * self.accelerator.num_processes
            torch.distributed.all_gather_object(everyone, done)
            done = {number: result for part in everyone for number, result in part.items()}
        return [item for number in sorted(done) for item in done[number]]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

"""How much each weight's own movement lowered the loss, step by step along the path of training."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Departure:
    """What an optimizer step sets out from: copies of the gradients and the weights, in float32."""

    names: list[str]
    gradients: list[torch.Tensor]
    weights: list[torch.Tensor]

    @classmethod
    def of(cls, parameters: dict[str, nn.Parameter], *, may_overflow: bool = False) -> "Departure":
        """Copy what has a gradient. `may_overflow`: take nothing where a gradient is not finite, as in fp16's skips."""
        names = [name for name, p in parameters.items() if p.grad is not None]
        gradients = [parameters[name].grad for name in names]
        if may_overflow and gradients and not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            return cls([], [], [])
        copies = [[t.detach().to(torch.float32, copy=True) for t in tensors]
                  for tensors in (gradients, [parameters[name] for name in names])]  # fmt: skip
        return cls(names, *copies)

    def loss_decrease(self, parameters: dict[str, nn.Parameter]) -> list[torch.Tensor]:
        """Return -g (w' - w) for each of `names`, w' the weights now: the loss each weight saved, to first order."""
        moved = torch._foreach_sub(self.weights, [parameters[name].detach().float() for name in self.names])
        torch._foreach_mul_(moved, self.gradients)
        return moved

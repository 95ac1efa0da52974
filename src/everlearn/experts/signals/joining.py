"""The space in which tasks are compared: signals standardised by what a library knows, scaled, weighted and joined."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError, check_number, describe
from everlearn.experts.signals.context import SPREAD, TYPICAL

BLOCKS = ("text", "gradient", "context")
PRIOR_TASKS = 8  # tasks that the prior of the deviations counts for; that of the means counts for one


@dataclass(frozen=True)
class Space:
    """How signals become vectors of norm 1 whose inner product is a similarity.

    Attributes:
        blocks: {text, gradient, context: how many numbers}, in their order in a signal.
        mean, deviation: that signals are standardised by, [dimension].
        weights: of each block.
    """

    blocks: dict[str, int]
    mean: torch.Tensor
    deviation: torch.Tensor
    weights: dict[str, float]

    @classmethod
    def of(
        cls, signals: torch.Tensor, blocks: Mapping[str, int], weights: Mapping[str, float] | None = None
    ) -> "Space":
        """Return the space that a library's prototypes make.

        Mean and deviation are the prototypes', and a prior's while they are few: of n, the mean is (sum + m) / (n + 1),
        the variance (n v + 8 v0) / (n + 8). m and v0 are 0 and the block's mean variance for text and gradient; what is
        typical for context. So they are no state: the same prototypes give the same space.

        Args:
            signals: [n, dimension], n may be 0. weights: 1 each by default; 0 leaves a block out.

        Raises:
            ConfigError: if the dimension is another than the blocks', or no weight is above 0.
        """
        weights = {name: 1.0 for name in blocks} | dict(weights or {})
        for name, weight in weights.items():
            check_number(f"signals: weight of {name}", weight, low=0)
        if not any(weights.values()):
            raise ConfigError(describe("signals: weights", "leave no signal", weights, "Let one be above 0"))
        check_dimension(signals, blocks, "prototypes")
        signals, n = signals.float(), len(signals)
        means, deviations = [], []
        for name, part in zip(blocks, signals.split(list(blocks.values()), dim=1), strict=True):
            prior = torch.tensor(TYPICAL) if name == "context" else torch.zeros(part.shape[1])
            mean = (part.sum(0) + prior) / (n + 1)
            squares = (part - mean).square().sum(0)  # n times the variance
            spread = torch.tensor(SPREAD).square() if name == "context" else (squares / max(n, 1)).mean()
            variance = (squares + PRIOR_TASKS * spread) / (n + PRIOR_TASKS)
            means.append(mean)
            deviations.append(variance.sqrt() if variance.any() else torch.ones_like(variance))
        return cls(dict(blocks), torch.cat(means), torch.cat(deviations), weights)

    def joined(self, signals: torch.Tensor) -> torch.Tensor:
        """Return signals [..., dimension] as vectors of norm 1: each block is standardised, scaled to norm 1, weighted.

        Raises:
            ConfigError: if the dimension is another.
        """
        check_dimension(signals, self.blocks, "signal")
        parts = ((signals.float() - self.mean) / self.deviation).split(list(self.blocks.values()), dim=-1)
        scaled = [self.weights[name] * F.normalize(part, dim=-1) for name, part in zip(self.blocks, parts, strict=True)]
        return F.normalize(torch.cat(scaled, dim=-1), dim=-1)


def check_dimension(signals: torch.Tensor, blocks: Mapping[str, int], where: str) -> None:
    """Raise ConfigError where signals [..., dimension] are not made of these blocks."""
    wanted = sum(blocks.values())
    if signals.shape[-1] != wanted:
        made_of = " + ".join(f"{name} {n}" for name, n in blocks.items())
        way_out = "Use the signals that the library's profiles were made with, or begin a new library"
        raise ConfigError(describe(where, f"need {made_of} = {wanted} numbers", signals.shape[-1], way_out))

"""Signals of made-up skills, small."""

import torch

from everlearn.experts.profiles import Prototypes
from everlearn.experts.signals.context import FEATURES as CONTEXT

BLOCKS = {"text": 12, "gradient": 8, "context": len(CONTEXT)}
N = sum(BLOCKS.values())


def skills(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, N, generator=torch.Generator().manual_seed(seed))


def look(skill: torch.Tensor, seed: int, noise: float = 0.2) -> torch.Tensor:
    return skill + noise * torch.randn(N, generator=torch.Generator().manual_seed(1000 + seed))


def library_of(n: int, first: int = 0) -> Prototypes:
    """Return the prototypes of n experts, numbered from `first`."""
    experts = list(range(first, first + n))
    vectors = [skills(1, seed=7 + expert) for expert in experts]
    return Prototypes(torch.cat([torch.zeros(0, N), *vectors]), experts, [f"task {expert}" for expert in experts])

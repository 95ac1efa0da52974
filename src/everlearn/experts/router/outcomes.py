"""What came of earlier decisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
import torch

from everlearn.experts.router.calibration import FEATURES, N_BINS


@dataclass(frozen=True)
class Outcomes:
    """What is known of earlier decisions. experts: [n]; features: [n, len(FEATURES)]; right: whether reuse was as good
    as a new expert, [n]."""  # fmt: skip

    experts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    features: np.ndarray = field(default_factory=lambda: np.zeros((0, len(FEATURES))))
    right: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __len__(self) -> int:
        return len(self.right)

    def having(self, expert: int, features: np.ndarray, right: bool) -> "Outcomes":
        """Return them and one more."""
        return Outcomes(
            np.append(self.experts, expert), np.vstack([self.features, features]), np.append(self.right, right)
        )  # fmt: skip

    @cached_property
    def _counts(self) -> dict[tuple[int, int], tuple[int, int]]:
        """{(expert, fifth of the similarity): how many, how many right}."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for expert, similarity, right in zip(self.experts, self.features[:, 0], self.right, strict=True):
            n, n_right = found.get((int(expert), _fifth(similarity)), (0, 0))
            found[int(expert), _fifth(similarity)] = n + 1, n_right + int(right)
        return found

    def like(self, expert: int, similarity: float) -> tuple[int, int]:
        """Return how many there are of an expert at a similarity in the same fifth as this one, and how many right."""
        return self._counts.get((expert, _fifth(similarity)), (0, 0))

    def state(self) -> dict[str, torch.Tensor]:
        """Return them as tensors."""
        return {field.name: torch.from_numpy(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, torch.Tensor]) -> "Outcomes":
        """Undo `state`."""
        return cls(**{name: tensor.numpy() for name, tensor in state.items()})


def _fifth(similarity: float) -> int:
    return min(max(int(similarity * N_BINS), 0), N_BINS - 1)

"""What came of earlier decisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from everlearn.experts.router.calibration import BINS, FEATURES


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

    def like(self, expert: int, similarity: float) -> np.ndarray:
        """Return those of an expert whose similarity was in the same fifth as this one, [n]."""
        bins = np.digitize(self.features[:, 0], BINS[1:-1])
        return self.right[(self.experts == expert) & (bins == np.digitize(similarity, BINS[1:-1]))]

    def state(self) -> dict[str, torch.Tensor]:
        """Return them as tensors."""
        return {name: torch.from_numpy(array) for name, array in vars(self).items()}

    @classmethod
    def from_state(cls, state: Mapping[str, torch.Tensor]) -> "Outcomes":
        """Undo `state`."""
        return cls(**{name: tensor.numpy() for name, tensor in state.items()})

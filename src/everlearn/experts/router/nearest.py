"""A library's prototypes, ready to be compared with: the experts that are nearest to a task."""

from collections.abc import Mapping

import numpy as np
import torch

from everlearn.experts.profiles import Prototypes
from everlearn.experts.signals.joining import Space


class Known:
    """Prototypes in the space that they make.

    Attributes:
        experts: their numbers, ascending. tasks: of the prototypes. vectors: of norm 1, float32 [n, dimension].
    """

    def __init__(self, prototypes: Prototypes, blocks: Mapping[str, int], weights: Mapping[str, float]):
        self.space = Space.of(prototypes.vectors, blocks, weights)
        self.tasks = prototypes.tasks
        self.vectors = self.space.joined(prototypes.vectors).numpy()
        self.experts, self._places = np.unique(np.array(prototypes.experts, dtype=np.int64), return_inverse=True)

    def similarities(self, vectors: torch.Tensor) -> np.ndarray:
        """Return the similarity of signals [n, dimension] to each expert's nearest prototype, [n, experts]."""
        scores = self.space.joined(vectors).numpy() @ self.vectors.T
        found = np.full((len(scores), len(self.experts)), -np.inf, dtype=np.float32)
        np.maximum.at(found.T, self._places, scores.T)
        return found

    def nearest(self, vector: torch.Tensor, k: int) -> list[tuple[int, float, int]]:
        """Return (expert, similarity, row of its nearest prototype) of the k experts nearest to a signal [dimension].

        Of equally near ones the lower number comes first.
        """
        scores = self.vectors @ self.space.joined(vector).numpy()
        best: dict[int, tuple[int, float, int]] = {}
        for row in np.argsort(-scores, kind="stable"):
            place = int(self._places[row])
            if place not in best:
                best[place] = (int(self.experts[place]), float(scores[row]), int(row))
                if len(best) == k:
                    break
        return list(best.values())

    def context(self, vector: torch.Tensor, row: int) -> float:
        """Return the cosine of a signal's context to that of a prototype; 0 where it's left out."""
        n = self.space.blocks.get("context", 0)
        parts = self.space.joined(vector).numpy()[-n:], self.vectors[row, -n:]
        norm = float(np.linalg.norm(parts[0]) * np.linalg.norm(parts[1]))
        return float(parts[0] @ parts[1]) / norm if n and norm else 0.0

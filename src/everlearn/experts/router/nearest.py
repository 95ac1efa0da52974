"""A library's prototypes, ready to be compared with: the experts that are nearest to a task."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from everlearn.experts.profiles import Prototypes
from everlearn.experts.router.metric import Embedding, Mlp
from everlearn.experts.router.search import FOUND, Index
from everlearn.seeds import generator_for


@dataclass(frozen=True)
class Near:
    """An expert: its similarity to a task by its nearest prototype, whose task is named, and how alike the contexts of
    the two are (a cosine; 0 where the context is left out)."""  # fmt: skip

    expert: int
    task: str
    similarity: float
    context: float


class Known:
    """Prototypes in the space that they make.

    Args:
        index: finds the nearest prototypes; None: all are compared, and held in memory once more.

    Attributes:
        experts: their numbers, ascending.
    """

    def __init__(self, prototypes: Prototypes, embedding: Embedding, index: Index | None = None):
        self.prototypes, self.embedding, self._index = prototypes, embedding, index
        self._owners = np.array(prototypes.experts, dtype=np.int64)
        self.experts, self._columns = np.unique(self._owners, return_inverse=True)
        self._rows = None if index is not None else embedding.of(prototypes.vectors)

    def similarities(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the similarity of signals [n, dimension] to each expert's nearest prototype, [n, experts]."""
        rows = self.embedding.of(self.prototypes.vectors) if self._rows is None else self._rows
        scores = self.embedding.scores(self.embedding.of(vectors), rows)
        columns = torch.from_numpy(self._columns).expand(len(scores), -1)
        lowest = torch.full((len(scores), len(self.experts)), -torch.inf)
        return lowest.scatter_reduce(1, columns, scores, "amax")

    def nearest(self, vector: torch.Tensor, k: int) -> list[Near]:
        """Return up to k experts near to a signal [dimension], nearest first; of equally near ones the lower number.

        They are those of the 50 nearest prototypes, nearest by cosine where the metric is an `mlp`.
        """
        query = self.embedding.of(vector)
        rows, scores = self._shortlist(query)
        found: dict[int, int] = {}
        for place in np.lexsort((self._owners[rows], -scores)):
            found.setdefault(int(self._owners[rows[place]]), int(place))
            if len(found) == k:
                break
        context = self._contexts(vector, rows[list(found.values())])
        tasks = self.prototypes.tasks
        return [
            Near(expert, tasks[rows[place]], float(scores[place]), float(alike))
            for (expert, place), alike in zip(found.items(), context, strict=True)
        ]

    def _shortlist(self, query: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return rows among which the nearest are, and their similarities in float32."""
        if self._rows is None:
            rows = self._index.search(query.numpy())
            embedded = self.embedding.of(self.prototypes.vectors[torch.from_numpy(rows)])
            return rows, self.embedding.scores(query[None], embedded)[0].numpy()
        scores = self._rows.numpy() @ query.numpy()
        rows = np.argpartition(-scores, FOUND)[:FOUND] if len(scores) > FOUND else np.arange(len(scores))
        if isinstance(self.embedding.metric, Mlp):
            return rows, self.embedding.scores(query[None], self._rows[torch.from_numpy(rows)])[0].numpy()
        return rows, scores[rows]

    def _contexts(self, vector: torch.Tensor, rows: np.ndarray) -> np.ndarray:
        """Return the cosines of a signal's context to that of some prototypes, [n]."""
        space = self.embedding.space
        if "context" not in space.blocks:
            return np.zeros(len(rows))
        place, sizes = list(space.blocks).index("context"), list(space.blocks.values())
        signals = (vector, self.prototypes.vectors[torch.from_numpy(rows)])
        query, others = (F.normalize(space.joined(one).split(sizes, dim=-1)[place], dim=-1) for one in signals)
        return (others @ query).numpy()


class Drawn(Known):
    """Similarities drawn at random from the signal's numbers and a seed, to compare with."""

    def __init__(self, prototypes: Prototypes, embedding: Embedding, seed: int):
        super().__init__(prototypes, embedding)
        self._seed = seed

    def similarities(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return numbers in [0, 1), [n, experts]."""
        return torch.stack([self._drawn(vector) for vector in vectors])

    def nearest(self, vector: torch.Tensor, k: int) -> list[Near]:
        """Return k experts drawn at random, the highest number first."""
        drawn = self._drawn(vector)
        rows = [int(np.flatnonzero(self._columns == column)[0]) for column in range(len(self.experts))]
        best = drawn.argsort(descending=True, stable=True)[:k].tolist()
        return [Near(int(self.experts[i]), self.prototypes.tasks[rows[i]], float(drawn[i]), 0.0) for i in best]

    def _drawn(self, vector: torch.Tensor) -> torch.Tensor:
        generator = generator_for("random similarity", self._seed, *vector.tolist())
        return torch.rand(len(self.experts), generator=generator)

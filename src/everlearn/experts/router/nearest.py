"""A library's prototypes, ready to be compared with: the experts that are nearest to a task."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from everlearn.experts.profiles import Prototypes
from everlearn.experts.router.metric import Embedding, Mlp
from everlearn.experts.router.search import FOUND, Index
from everlearn.seeds import generator_for

Able = Callable[[int, str], bool]  # of an expert and a task that it learned: whether it can answer as it does that one


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

    @torch.no_grad()
    def nearest(self, vector: torch.Tensor, k: int, able: Able | None = None) -> list[Near]:
        """Return up to k experts near to a signal [dimension], nearest first; of equally near ones the lower number.

        They are those of the 32 nearest prototypes, nearest by cosine where the metric is an `mlp`.

        Args:
            able: which prototypes count; None: all. Where fewer than k experts of the 32 do, more are looked at.
        """
        joined = self.embedding.space.joined(vector)
        query, n, found = self.embedding.metric.embed(joined), FOUND, {}
        while True:
            rows, scores, others = self._shortlist(query, n)
            found = self._first_of(rows, scores, k, able)
            if able is None or len(found) == k or n >= len(self._owners):
                break
            n *= 8
        places = list(found.values())
        others = self._joined(rows[places]) if others is None else others[places]
        nearest = zip(found, rows[places], scores[places].tolist(), self._contexts(joined, others), strict=True)
        return [Near(expert, self.prototypes.tasks[row], score, alike) for expert, row, score, alike in nearest]

    def _first_of(self, rows: np.ndarray, scores: np.ndarray, k: int, able: Able | None) -> dict[int, int]:
        """Return {expert: place of its nearest row that counts} of up to k experts, nearest first."""
        found: dict[int, int] = {}
        for place in np.lexsort((self._owners[rows], -scores)).tolist():
            expert = int(self._owners[rows[place]])
            if expert not in found and (able is None or able(expert, self.prototypes.tasks[rows[place]])):
                found[expert] = place
                if len(found) == k:
                    break
        return found

    def _shortlist(self, query: torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor | None]:
        """Return n rows among which the nearest are, their similarities in float32, and what they are in the space,
        where that was needed."""  # fmt: skip
        if self._rows is None:
            rows = self._index.search(query.numpy(), min(n, len(self._owners)))
            joined = self._joined(rows)
            return rows, self._scores(query, self.embedding.metric.embed(joined)), joined
        scores = self._rows.numpy() @ query.numpy()
        rows = np.argpartition(-scores, n)[:n] if len(scores) > n else np.arange(len(scores))
        return rows, self._scores(query, self._rows[torch.from_numpy(rows)]), None

    def _scores(self, query: torch.Tensor, rows: torch.Tensor) -> np.ndarray:
        if isinstance(self.embedding.metric, Mlp):
            return self.embedding.scores(query[None], rows)[0].numpy()
        return rows.numpy() @ query.numpy()  # a few times faster than torch where it is so little

    def _joined(self, rows: np.ndarray) -> torch.Tensor:
        return self.embedding.space.joined(self.prototypes.vectors[torch.from_numpy(rows)])

    def _contexts(self, one: torch.Tensor, others: torch.Tensor) -> list[float]:
        """Return the cosines of the context of a joined signal [dimension] to that of others [n, dimension]."""
        blocks = self.embedding.space.blocks
        if "context" not in blocks:
            return [0.0] * len(others)
        begin = sum(blocks[name] for name in list(blocks)[: list(blocks).index("context")])
        query, rows = (each.numpy()[..., begin : begin + blocks["context"]] for each in (one, others))
        norms = np.linalg.norm(query) * np.linalg.norm(rows, axis=1)
        return (rows @ query / np.maximum(norms, 1e-12)).tolist()


class Drawn(Known):
    """Similarities drawn at random from the signal's numbers and a seed, to compare with."""

    def __init__(self, prototypes: Prototypes, embedding: Embedding, seed: int):
        super().__init__(prototypes, embedding)
        self._seed = seed

    def similarities(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return numbers in [0, 1), [n, experts]."""
        return torch.stack([self._drawn(vector) for vector in vectors])

    def nearest(self, vector: torch.Tensor, k: int, able: Able | None = None) -> list[Near]:
        """Return k experts drawn at random, of those with a prototype that counts, the highest number first."""
        drawn, tasks = self._drawn(vector), {}
        for expert, task in zip(self.prototypes.experts, self.prototypes.tasks, strict=True):
            if able is None or able(expert, task):
                tasks.setdefault(expert, task)
        order = drawn.argsort(descending=True, stable=True).tolist()
        best = [i for i in order if int(self.experts[i]) in tasks][:k]
        return [Near(int(self.experts[i]), tasks[int(self.experts[i])], float(drawn[i]), 0.0) for i in best]

    def _drawn(self, vector: torch.Tensor) -> torch.Tensor:
        generator = generator_for("random similarity", self._seed, *vector.tolist())
        return torch.rand(len(self.experts), generator=generator)

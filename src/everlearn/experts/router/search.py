"""Search among very many prototypes by usearch: an index, which is a cache of them and is made anew when in doubt."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from everlearn.errors import StateError
from everlearn.experts.profiles import Prototypes
from everlearn.experts.router.metric import Embedding
from everlearn.experts.signals.joining import Space
from everlearn.files import read_sealed, remove, sha256_of, staged, write_sealed
from everlearn.seeds import generator_for

if TYPE_CHECKING:
    from usearch.index import Index as Usearch

FOUND = 32  # rows that are compared exactly
RECALL = 0.99  # of the ten nearest, at least
EFFORTS = (64, 128, 256, 512, 1024, 2048, 4096)  # usearch's expansion_search
N_QUERIES, NOISE = 100, 0.5  # that recall is measured with: rows, moved by so much of their length
CHUNK = 8192  # rows embedded at a time
STALE = 0.2  # share of the rows that may come or go until the index is made anew


def available() -> bool:
    """Tell whether usearch, the extra `everlearn[search]`, is installed."""
    return find_spec("usearch") is not None


class Index:
    """Finds the rows that are likely nearest, in float16, by a graph of neighbours.

    Mean and deviation of its space are those of the prototypes that it was made of: rows that come later are added, and
    those that go taken out, until a fifth has changed.

    Attributes:
        embedding: of its rows. recall: measured share of the ten nearest that it finds; below 0.99 it isn't to be used.

    Cost: made at 0.2 to 0.6 ms a row of 512, one thread, and 1.2 KB of memory; `benchmarks/router.py` measures both.
    Source: Malkov & Yashunin 2018, Efficient and robust approximate nearest neighbor search using HNSW graphs.
    """

    def __init__(self, graph: "Usearch", embedding: Embedding, recall: float, n_made: int, n_changed: int = 0):
        self.graph, self.embedding, self.recall = graph, embedding, recall
        self._n_made, self._n_changed = n_made, n_changed
        self._sorted, self._order = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)

    @classmethod
    def make(cls, prototypes: Prototypes, embedding: Embedding) -> "Index":
        """Return an index of prototypes whose effort suffices for a recall of 0.99, or is the greatest."""
        from usearch.index import Index as Usearch

        options = {"metric": "cos", "dtype": "f16", "connectivity": 16, "expansion_add": 128}
        graph = Usearch(ndim=prototypes.vectors.shape[1], **options)
        index = cls(graph, embedding, 0.0, len(prototypes.vectors))
        keys = _keys(prototypes)
        index._add(prototypes, keys, np.arange(len(keys)))
        index._locate(keys)
        for graph.expansion_search in EFFORTS:
            index.recall = index._measured_recall(prototypes)
            if index.recall >= RECALL:
                break
        return index

    def __len__(self) -> int:
        return len(self._sorted)

    def follow(self, prototypes: Prototypes) -> bool:
        """Add the rows that are new and take out those that are gone; return False where it should be made anew."""
        keys = _keys(prototypes)
        known = np.isin(keys, self._sorted)
        gone = np.setdiff1d(self._sorted, keys)
        n_changed = self._n_changed + int((~known).sum()) + len(gone)
        if n_changed > STALE * self._n_made:
            return False
        self._n_changed = n_changed
        self._add(prototypes, keys, np.flatnonzero(~known))
        if len(gone):
            self.graph.remove(gone)
        self._locate(keys)
        return True

    def search(self, query: np.ndarray, k: int = FOUND) -> np.ndarray:
        """Return the rows of the prototypes likely nearest to an embedded query [dimension], nearest first."""
        found = self.graph.search(query, k, threads=1).keys
        return self._order[np.searchsorted(self._sorted, found)]

    def save(self, place: Path, settings: str) -> None:
        """Write it as a folder, in place of what is there.

        Args:
            settings: of the embedding, as `fingerprint` returns them.
        """
        remove(place)
        with staged(place) as aside:
            self.graph.save(aside / "rows.usearch")
            space = self.embedding.space
            write_sealed(aside / "index.json", {
                "rows": sha256_of(aside / "rows.usearch"), "settings": settings, "recall": self.recall,
                "effort": self.graph.expansion_search, "n_made": self._n_made, "n_changed": self._n_changed,
                "mean": space.mean.tolist(), "deviation": space.deviation.tolist(),
            })  # fmt: skip

    @classmethod
    def load(cls, place: Path, settings: str, embedding: Embedding) -> "Index | None":
        """Return what `save` wrote, with the space it had; None where it isn't whole, or of other settings."""
        from usearch.index import Index as Usearch

        try:
            told = read_sealed(place / "index.json")
            if told["settings"] != settings or told["rows"] != sha256_of(place / "rows.usearch"):
                return None
        except StateError:  # a cache: what it held is made anew
            return None
        space = embedding.space
        space = Space(space.blocks, torch.tensor(told["mean"]), torch.tensor(told["deviation"]), space.weights)
        graph = Usearch.restore(place / "rows.usearch")
        graph.expansion_search = told["effort"]  # restoring forgets it
        index = cls(graph, Embedding(space, embedding.metric), told["recall"], told["n_made"], told["n_changed"])
        index._locate(np.sort(np.asarray(graph.keys, dtype=np.uint64)))
        return index

    def _add(self, prototypes: Prototypes, keys: np.ndarray, rows: np.ndarray) -> None:
        for first in range(0, len(rows), CHUNK):
            part = rows[first : first + CHUNK]
            vectors = self.embedding.of(prototypes.vectors[torch.from_numpy(part)])
            self.graph.add(keys[part], vectors.numpy(), threads=1)  # more would make another graph each time

    def _locate(self, keys: np.ndarray) -> None:
        self._order = np.argsort(keys)
        self._sorted = keys[self._order]

    def _measured_recall(self, prototypes: Prototypes) -> float:
        generator = generator_for("recall", len(prototypes.vectors))
        rows = torch.randint(len(prototypes.vectors), (N_QUERIES,), generator=generator)
        queries = self.embedding.of(prototypes.vectors[rows])
        noise = F.normalize(torch.randn(queries.shape, generator=generator), dim=1)
        queries = F.normalize(queries + NOISE * noise, dim=1)
        scores = torch.cat([queries @ self.embedding.of(part).T for part in prototypes.vectors.split(CHUNK)], dim=1)
        nearest = scores.topk(min(10, scores.shape[1]), dim=1).indices.numpy()
        found = [
            np.isin(true, self.search(query)[:10]).mean() for query, true in zip(queries.numpy(), nearest, strict=True)
        ]
        return float(np.mean(found))


def fingerprint(embedding: Embedding) -> str:
    """Return a name of what an embedding depends on beside the prototypes: blocks, weights and metric."""
    digest = hashlib.sha256(json.dumps([embedding.space.blocks, embedding.space.weights]).encode())
    for name, value in embedding.metric.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _keys(prototypes: Prototypes) -> np.ndarray:
    """Return a number for each prototype that depends on its expert, its task and all its numbers, uint64 [n]."""
    rows = prototypes.vectors.contiguous().numpy()
    owners = zip(rows, prototypes.experts, prototypes.tasks, strict=True)
    digests = [hashlib.blake2b(f"{e}\n{t}\n".encode() + row.tobytes(), digest_size=8).digest() for row, e, t in owners]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)

"""How like two tasks are: the cosine in the space of signals, or what is learned to go beyond it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ConfigError, describe
from everlearn.experts.signals.joining import Space

RANK, HIDDEN = 16, 32
TEMPERATURE = 0.1
N_CHECKS = 10  # looks at the experts held out, during a fit
N_OTHERS = 64  # prototypes of experts that aren't in a batch, at most, beside those that are


class Metric(nn.Module):
    """The cosine."""

    def embed(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return vectors of norm 1 [..., dimension] as what a search for the nearest compares, of norm 1 too."""
        return vectors

    def scores(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the similarities [n, m] of embedded queries [n, dimension] to embedded rows [m, dimension]."""
        return queries @ rows.T


class Linear(Metric):
    """The cosine after x + U D x, with D [16, dimension] and U [dimension, 16]: a Mahalanobis metric, 16 directions of
    which are learned. Untrained (U is 0) it is the cosine."""  # fmt: skip

    def __init__(self, dimension: int, generator: torch.Generator):
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, dimension, generator=generator) / dimension**0.5)
        self.up = nn.Parameter(torch.zeros(dimension, RANK))

    def embed(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.normalize(vectors + vectors @ self.down.T @ self.up.T, dim=-1)


class Mlp(Metric):
    """The cosine and what a network of one hidden layer makes of a pair, of q ∘ p and |q − p|: the same in both orders.

    Untrained it is the cosine. Among very many prototypes the cosine's nearest are looked at alone.
    """

    def __init__(self, dimension: int, generator: torch.Generator):
        super().__init__()
        self.hidden = nn.Parameter(torch.randn(2 * dimension, HIDDEN, generator=generator))
        self.bias = nn.Parameter(torch.zeros(HIDDEN))
        self.out = nn.Parameter(torch.zeros(HIDDEN))

    def scores(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        found = []
        for query in queries:  # pairs of one query at a time, for the sake of memory
            pairs = torch.cat([query * rows, (query - rows).abs()], dim=1)
            found.append(rows @ query + F.gelu(pairs @ self.hidden + self.bias) @ self.out)
        return torch.stack(found)


METRICS = {"linear": Linear, "mlp": Mlp}


@dataclass(frozen=True)
class Embedding:
    """What makes of signals what is searched: a space, and a metric in it."""

    space: Space
    metric: Metric

    @torch.no_grad()
    def of(self, signals: torch.Tensor) -> torch.Tensor:
        """Return signals [..., dimension] as vectors of norm 1, float32 [..., dimension]."""
        return self.metric.embed(self.space.joined(signals))

    @torch.no_grad()
    def scores(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the similarities [n, m] of embedded queries to embedded rows."""
        return self.metric.scores(queries, rows)


@dataclass(frozen=True)
class Fit:
    """What a fit brought: mean log loss of the right expert among all, nats, on looks at experts held out, `before` and
    `after`; equal where nothing better than before was found."""  # fmt: skip

    before: float
    after: float


def fit(
    metric: Metric, rows: torch.Tensor, owners: Sequence[int], looks: torch.Tensor, experts: Sequence[int], *,
    n_steps: int, batch_size: int, learning_rate: float, weight_decay: float, generator: torch.Generator,
) -> Fit:  # fmt: skip
    """Train a metric so that looks at tasks are most like the prototypes of their experts.

    The loss is the softmax's over the experts of a batch and a few others, an expert having the sum of its prototypes'.
    A fifth of the experts is held out, for a metric is for experts to come; of the metrics on the way, the one that was
    there at first included, that with the lowest loss on them stays. Prototypes are data here, and never change.

    Args:
        rows: prototypes of norm 1, [m, dimension]. owners: their experts. looks: [n, dimension]. experts: of the looks.

    Raises:
        ConfigError: if there are looks at fewer than five experts, or at one without a prototype.
    Source: van den Oord et al. 2018, Representation learning with contrastive predictive coding (InfoNCE).
    """
    known = sorted(set(experts))
    if len(known) < 5 or not set(known) <= set(owners):
        way_out = "Give looks at five experts or more, each with a prototype"
        raise ConfigError(describe("router: fit", "can't learn from these looks", known[:20], way_out))
    held = {known[int(place)] for place in torch.randperm(len(known), generator=generator)[: len(known) // 5]}
    of_row, of_look = torch.tensor(list(owners)), torch.tensor(list(experts))
    row_held, look_held = (torch.tensor([int(one) in held for one in of]) for of in (of_row, of_look))
    learn_rows, learn_looks = (~row_held).nonzero()[:, 0], (~look_held).nonzero()[:, 0]

    @torch.no_grad()
    def held_out_loss() -> float:
        return float(_loss(metric, looks[look_held], of_look[look_held], rows, of_row))

    optimizer = torch.optim.AdamW(metric.parameters(), lr=learning_rate, weight_decay=weight_decay)
    before = lowest = held_out_loss()
    best = {name: value.clone() for name, value in metric.state_dict().items()}
    for step in range(1, n_steps + 1):
        batch = learn_looks[torch.randint(len(learn_looks), (batch_size,), generator=generator)]
        others = learn_rows[torch.randint(len(learn_rows), (N_OTHERS,), generator=generator)]
        present = torch.isin(of_row[learn_rows], of_look[batch]) | torch.isin(learn_rows, others)
        chosen = learn_rows[present]
        optimizer.zero_grad()
        _loss(metric, looks[batch], of_look[batch], rows[chosen], of_row[chosen]).backward()
        optimizer.step()
        if step % max(1, n_steps // N_CHECKS) == 0:
            loss = held_out_loss()
            if loss < lowest:
                lowest, best = loss, {name: value.clone() for name, value in metric.state_dict().items()}
    metric.load_state_dict(best)
    return Fit(before, lowest)


def _loss(
    metric: Metric, looks: torch.Tensor, experts: torch.Tensor, rows: torch.Tensor, owners: torch.Tensor
) -> torch.Tensor:
    scores = metric.scores(metric.embed(looks), metric.embed(rows)) / TEMPERATURE
    right = scores.masked_fill(experts[:, None] != owners, -torch.inf)
    return (scores.logsumexp(1) - right.logsumexp(1)).mean()

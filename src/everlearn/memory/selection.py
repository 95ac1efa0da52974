"""Which rows of a task are worth keeping: orders, best first; and how many of them, when several share a budget."""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from everlearn.types import Family


def allot(costs: Sequence[Sequence[int]], budget: int) -> list[int]:
    """Return how many of its first rows each group keeps, greedily: the group that has spent least takes its next row.

    A group whose next row no longer fits is done. With costs of 1, groups get equal numbers as far as they have rows.

    Args:
        costs: for each group what its rows cost, best row first.

    Cost: O(n log groups) for the n rows that are kept.
    """
    kept, left = [0] * len(costs), budget
    waiting = [(0, group) for group, own in enumerate(costs) if len(own)]
    while waiting:
        spent, group = heapq.heappop(waiting)
        cost = costs[group][kept[group]]
        if cost > left:
            continue
        left -= cost
        kept[group] += 1
        if kept[group] < len(costs[group]):
            heapq.heappush(waiting, (spent + cost, group))
    return kept


def even_shares(capacity: int, n_groups: int) -> list[int]:
    """Return how a capacity is shared equally: parts that differ by one at most and sum to it."""
    return [capacity * (i + 1) // n_groups - capacity * i // n_groups for i in range(n_groups)]


def order_of(scores: Tensor, *, highest: bool) -> list[int]:
    """Return the rows by score [n], the highest (or lowest) first; equal ones in their order."""
    return torch.sort(scores, descending=highest, stable=True).indices.tolist()


def entropies(logits: Tensor, family: Family = "categorical") -> Tensor:
    """Return -sum_c p_c log p_c of each prediction p = softmax(logits), nats. logits: [items, classes].

    Of several labels (family bernoulli) it is the sum of theirs.
    """
    if family == "bernoulli":
        p = logits.double().sigmoid()
        return (torch.special.entr(p) + torch.special.entr(1 - p)).sum(-1).to(logits.dtype)
    log_p = F.log_softmax(logits.float(), dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def margins(logits: Tensor, family: Family = "categorical") -> Tensor:
    """Return by how much the likeliest class is likelier than the next, 1 where there is but one: [items].

    Of several labels (family bernoulli) it is how far the least sure one is from its toss-up: min_c |2 p_c - 1|.
    """
    if family == "bernoulli":
        return (2 * logits.float().sigmoid() - 1).abs().min(-1).values
    p = F.softmax(logits.float(), dim=-1)
    if p.shape[-1] == 1:
        return p[:, 0]
    top = p.topk(2, dim=-1).values
    return top[:, 0] - top[:, 1]


def herding_order(embeddings: Tensor, n: int) -> list[int]:
    """Return `n` rows, each chosen so that the mean of those chosen comes closest to the mean of all.

    k-th row: argmin_i |mean - (x_i + sum of the rows chosen) / k|. embeddings: [rows, width].

    Cost: O(n * rows * width).
    Source: Rebuffi et al. 2017 (iCaRL), arXiv 1611.07725, algorithm 4.
    """
    x = embeddings.double()
    to_mean, squares = x @ x.mean(0), x.square().sum(1)
    to_chosen = torch.zeros_like(squares)  # x_i . sum of the rows chosen
    free = torch.ones_like(squares, dtype=torch.bool)
    chosen: list[int] = []
    for k in range(1, min(n, len(x)) + 1):
        # |mean - (x_i + s) / k|^2 without the terms that are the same for all i
        distances = (squares + 2 * to_chosen) / k**2 - 2 * to_mean / k
        best = int(distances.masked_fill(~free, float("inf")).argmin())
        chosen.append(best)
        free[best] = False
        to_chosen += x @ x[best]
    return chosen


def diverse_order(gradients: Tensor, n: int, generator: torch.Generator, n_compared: int = 10) -> list[int]:
    """Return `n` rows whose gradients point apart, the most unlike the others first: GSS-greedy.

    Rows come one by one in a drawn order. A row's score is 1 + the largest cosine of its gradient with those of
    `n_compared` rows drawn from the memory. While there is room it is taken; after that, only if its score is below 1:
    it then replaces a row i drawn with probability C_i / sum C, with probability C_i / (C_i + its own).

    Args:
        gradients: [rows, width], at any scale.

    Cost: O(rows * n_compared * width).
    Source: Aljundi et al. 2019, arXiv 1903.08671, algorithm 2. Departs: the first row, with nothing to be compared
    with, scores 1; those kept are ranked by score, which the paper has no need of.
    """
    directions = F.normalize(gradients.double(), dim=1)
    kept: list[int] = []
    scores = torch.zeros(n, dtype=torch.float64)
    for row in torch.randperm(len(gradients), generator=generator).tolist() if n else ():
        drawn = torch.randperm(len(kept), generator=generator)[:n_compared].tolist()
        others = directions[[kept[i] for i in drawn]]
        score = 1 + float((others @ directions[row]).max()) if drawn else 1.0
        score = max(score, 1e-9)  # of opposite gradients; 0 could neither be drawn nor compared
        if len(kept) < n:
            scores[len(kept)] = score
            kept.append(row)
        elif score < 1:
            place = int(torch.multinomial(scores, 1, generator=generator))
            held = float(scores[place])
            if float(torch.rand((), generator=generator)) < held / (held + score):
                kept[place], scores[place] = row, score
    return [kept[i] for i in order_of(scores[: len(kept)], highest=False)]


def sample_by_bytes(keys: Sequence[int], costs: Sequence[int], budget: int, limit: int) -> tuple[list[int], int]:
    """Return a uniform sample of rows that fits into a budget, in the order of their keys, and the limit from now on.

    Each row has a random key for good. Kept are those with the smallest keys, up to the first that doesn't fit; from
    then on no row from that key on is taken. So the sample is the same however the rows came, and nothing of the rows
    that were let go need be remembered. A row that is larger than the whole budget is never kept.

    Args:
        keys, costs: of the rows in the memory and the new ones. limit: what the last call returned.
    """
    kept, left = [], budget
    for row in sorted(range(len(keys)), key=lambda row: (keys[row], row)):
        if keys[row] >= limit:
            break
        if costs[row] > budget:
            continue
        if costs[row] > left:
            return kept, keys[row]
        left -= costs[row]
        kept.append(row)
    return kept, limit


def draw_shares(sizes: Sequence[int], rises: Sequence[float]) -> list[float]:
    """Return each task's share of the replayed rows: more for tasks whose loss rose.

    share_k = 1/2 n_k / sum n + 1/2 n_k r_k / sum n r, with r_k = max(0, rise of the mean loss); where none rose,
    n_k / sum n. So half of the rows are drawn evenly, half where loss was added, in proportion to how much.

    Args:
        sizes: n_k, rows in the memory. rises: of the mean loss on them, nats.
    """
    added = [n * max(0.0, rise) for n, rise in zip(sizes, rises, strict=True)]
    evenly = [n / sum(sizes) for n in sizes]
    if sum(added) == 0:
        return evenly
    return [0.5 * even + 0.5 * more / sum(added) for even, more in zip(evenly, added, strict=True)]


def weighted_excess(losses: Tensor, old: Tensor, weight: float, ratio: float) -> Tensor:
    """Return what to add to the mean loss so that replayed items count `weight` times as much as new ones.

    mean_i c w_i l_i - mean_i l_i, with w_i = weight for replayed items and 1 for the others, and
    c = (1 + ratio) / (1 + weight ratio), so that weights are 1 on average over batches mixed by `ratio`. A constant c,
    not the batch's own 1 / mean w, keeps the result the same at any accumulation and number of processes.

    Args:
        losses: [items], each times what it counts in the loop's loss. old: bool [items], whether an item was replayed.
    """
    scale = (1 + ratio) / (1 + weight * ratio)
    return ((scale * (1 + (weight - 1) * old.to(losses.dtype)) - 1) * losses).mean()

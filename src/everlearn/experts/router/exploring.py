"""What is tried although it isn't known to be best: upper bounds, trials, tasks that lie far apart."""

import math

import torch

PRIOR_OUTCOMES = 10  # that p of the calibration counts for beside an expert's own


def posterior(p: float, n_right: float, n: int) -> float:
    """Return p of an expert with n outcomes of its own at this similarity, with the calibration's p as a prior."""
    return (PRIOR_OUTCOMES * p + n_right) / (PRIOR_OUTCOMES + n)


def upper_bound(p: float, n: int, t: int, explore: float) -> float:
    """Return p + explore · √(ln t / (n + 10)), of n outcomes of the expert at this similarity and t of all.

    Departs: the textbook's bonus is infinite at n = 0, so that each new expert would be tried on whatever comes.
    Source: Auer, Cesa-Bianchi & Fischer 2002, Finite-time analysis of the multiarmed bandit problem (UCB1).
    """
    return p + explore * math.sqrt(math.log(max(t, 1)) / (n + PRIOR_OUTCOMES))


def trial_chance(n_outcomes: int, rate: float) -> float:
    """Return the chance that a task becomes a trial: 1 at first, falling with 1/√n to `rate`.

    It doesn't depend on the task, so that the rate among trials is that among all.
    """
    return 0.0 if rate == 0 else max(rate, 1 / math.sqrt(1 + n_outcomes))


def k_centres(vectors: torch.Tensor, k: int, known: torch.Tensor | None = None) -> list[int]:
    """Return the places of k vectors that lie far apart, each the farthest from those before it and from `known`.

    Their greatest distance to what they leave out is at most twice the least possible. Of several as far the first is
    taken.

    Args:
        vectors: of norm 1, [n, d]. known: [m, d]; without them the first is the farthest from the mean.

    Cost: k products with all vectors.
    Source: Gonzalez 1985, Clustering to minimize the maximum intercluster distance.
    """
    nearest = None if known is None or not len(known) else (vectors @ known.T).amax(1)
    chosen: list[int] = []
    for _ in range(min(k, len(vectors))):
        place = int((vectors @ vectors.mean(0) if nearest is None else nearest).argmin())
        similarity = vectors @ vectors[place]
        nearest = similarity if nearest is None else nearest.maximum(similarity)
        nearest[place] = math.inf
        chosen.append(place)
    return chosen

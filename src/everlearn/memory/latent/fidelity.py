"""How true generated hidden states are, and how near they come to rows that were trained on."""

import numpy as np
import torch
from scipy.spatial.distance import cdist

from everlearn.memory.latent.layers import Latents

K_NEAREST = 3  # whose distance is the radius within which a sample counts as alike


def relative_error(states: torch.Tensor, restored: torch.Tensor, mask: torch.Tensor) -> float:
    """Return the mean squared error of restored states as a share of the states' variance over rows and positions.

    0 is perfect; 1 is what the mean state of all positions would get. First positions, where language models keep
    numbers of another size, are left out where there are others.

    Args:
        states, restored: [n_rows, n_positions, width]. mask: bool [n_rows, n_positions].
    """
    if mask[:, 1:].any():
        states, restored, mask = states[:, 1:], restored[:, 1:], mask[:, 1:]
    real = states[mask].double()
    error = (restored[mask].double() - real).square().mean()
    return (error / (real - real.mean(0)).square().mean().clamp(min=1e-12)).item()


def pooled(latents: Latents) -> np.ndarray:
    """Return each row's mean hidden state over its positions but the first, float64 [n_rows, width]."""
    mask = latents.mask.clone()
    mask[:, 0] &= latents.lengths == 1
    mask = mask.to(latents.states)[..., None]
    return ((latents.states * mask).sum(1) / mask.sum(1)).double().cpu().numpy()


def frechet_distance(real: np.ndarray, generated: np.ndarray, n_directions: int = 16) -> float:
    """Return the Fréchet distance of two Gaussians, |m - m'|² + tr(C + C' - 2 (C C')^½), along the main real axes.

    Axes are scaled so that `real` has a mean variance of 1 along them. With n rows there are at most n - 1.

    Args:
        real, generated: [n, width], [m, width].

    Source: Heusel et al. 2017, arXiv 1706.08500, sec. 2. Departs: of hidden states along few directions, for some
    hundreds of rows don't give the covariance of all. Small samples lie apart by chance: see it beside the distance of
    two halves of the real ones.
    """
    axes, scale = _axes(real, n_directions)
    a, b = ((x - real.mean(0)) @ axes / scale for x in (real, generated))
    one, other = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(min=0)).sum()
    distance = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one) + np.trace(other) - 2 * shared
    return max(0.0, float(distance))


def precision_and_recall(real: np.ndarray, generated: np.ndarray, k: int = K_NEAREST) -> tuple[float, float]:
    """Return the share of generated rows that lie among the real ones, and of real rows among the generated ones.

    A point lies among others if it is nearer to one of them than that one's k-th nearest of its own.

    Args:
        real, generated: [n, width], [m, width]; more than k of each.

    Source: Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 1 and 2.
    """
    return _share_among(real, generated, k), _share_among(generated, real, k)


def nearest_distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of each point [n, width] to the nearest of the others [m, width]: [n]."""
    return cdist(points, others).min(1)


def nearness(generated: np.ndarray, trained: np.ndarray, held_out: np.ndarray) -> float:
    """Return the share of generated rows that are nearer to a trained row than to any held-out one.

    As many of both are compared. 0.5 by chance: nothing tells which rows it was trained on. 1: it repeats them.

    Args:
        generated: [n, width]; trained, held_out: [m, width], [l, width], of the same distribution.
    """
    n = min(len(trained), len(held_out))
    to_trained, to_held_out = (nearest_distances(generated, rows[:n]) for rows in (trained, held_out))
    return float(np.mean((to_trained < to_held_out) + 0.5 * (to_trained == to_held_out)))


def answer_distance(real: torch.Tensor, generated: torch.Tensor) -> float:
    """Return the total variation between the mean answers to real and to generated rows, from 0 to 1.

    Args:
        real, generated: probabilities [n, n_classes], [m, n_classes].
    """
    return 0.5 * (real.mean(0) - generated.mean(0)).abs().sum().item()


def _share_among(manifold: np.ndarray, points: np.ndarray, k: int) -> float:
    own = cdist(manifold, manifold)
    np.fill_diagonal(own, np.inf)
    radii = np.sort(own, axis=1)[:, k - 1]
    return float((cdist(points, manifold) <= radii).any(1).mean())


def _axes(real: np.ndarray, n_directions: int) -> tuple[np.ndarray, float]:
    centred = real - real.mean(0)
    n = min(n_directions, len(real) - 1, real.shape[1])
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    scale = np.sqrt(np.square(sizes[:n]).sum() / (len(real) - 1) / n)
    return directions[:n].T, max(float(scale), 1e-12)

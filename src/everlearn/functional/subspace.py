"""Subspaces in which weights must not move: finding them, and taking them out of a gradient or of a change."""

import torch

NOISE = 1e-5  # of the longest vector: what float32 leaves of one that lies in the span of others


def take_out(change: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Return change - change M M', whose lines [..., n] are at right angles to the orthonormal columns M [n, k]."""
    return change - (change @ basis) @ basis.T


def complement(basis: torch.Tensor) -> torch.Tensor:
    """Return orthonormal columns [n, n - k] that span all that is at right angles to the orthonormal columns [n, k].

    Cost: a QR decomposition of [n, n].
    """
    return torch.linalg.qr(basis, mode="complete").Q[:, basis.shape[1] :].contiguous()


def new_directions(vectors: torch.Tensor, basis: torch.Tensor, limit: int) -> torch.Tensor:
    """Return orthonormal lines that span what the vectors add to a basis, those that carry the most of it first.

    Args:
        vectors: [n_vectors, n_weights].
        basis: orthonormal lines [n_directions, n_weights], none perhaps.
        limit: lines to return, at most. What hardly differs from the basis adds none.

    Returns:
        [n_new, n_weights], at right angles to the basis.

    Cost: QR of the vectors, 2 n_weights n_vectors^2 operations, and one copy of them.

    Source: Gram-Schmidt in Farajtabar et al. 2020, arXiv 1910.07104, algorithm 1; ordered by an SVD, as in Doan et al.
    2021, arXiv 2010.04003.
    """
    longest = float(torch.linalg.vector_norm(vectors, dim=1).max()) if len(vectors) else 0.0
    if longest == 0 or limit <= 0:
        return vectors[:0]
    rest = vectors / longest
    for _ in range(2):  # once more, for what rounding left
        rest = take_out(rest, basis.T)
    lines, triangle = torch.linalg.qr(rest.T)
    left, sizes, _ = torch.linalg.svd(triangle, full_matrices=False)
    n_new = min(limit, int((sizes > NOISE).sum()))
    found = (lines @ _signed(left.T[:n_new]).T).T
    return torch.nn.functional.normalize(take_out(found, basis.T)) if len(basis) else found.contiguous()


def leading_directions(moment: torch.Tensor, basis: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the fewest directions to add to a basis so that both hold this share of the inputs' energy.

    The smallest k with |M M'X|^2 + sum of the k largest eigenvalues of the rest's X X' >= threshold * |X|^2.

    Args:
        moment: X X', sum over inputs x of x x', float64 [n, n]; its eigenvalues are X's squared singular values.
        basis: M, orthonormal columns [n, k].
        threshold: epsilon of the paper, from 0 (none) to 1 (all that inputs ever span).

    Returns:
        Orthonormal columns [n, k_new], float64, at right angles to the basis.

    Cost: an eigendecomposition, about 10 n^3 operations.

    Source: Saha et al. 2021 (GPM), arXiv 2103.09762, eq. 5, 8 and 9.
    """
    basis = basis.double()
    rest = take_out(take_out(moment, basis).T, basis)
    energies, directions = torch.linalg.eigh((rest + rest.T) / 2)
    energies, directions = energies.flip(0).clamp(min=0), directions.flip(1)
    total = moment.trace()
    held = (total - energies.sum()).clamp(min=0)
    enough = held + torch.cat([energies.new_zeros(1), energies.cumsum(0)]) >= threshold * total * (1 - 1e-12)
    n_new = min(int((~enough).sum()), moment.shape[0] - basis.shape[1])
    return _signed(take_out(directions[:, :n_new].T, basis)).T


def top_directions(weight: torch.Tensor, n_kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the singular vectors of the `n_kept` largest singular values: U [rows, n_kept] and V [columns, n_kept].

    Cost: a singular value decomposition.
    """
    left, _, right = torch.linalg.svd(weight.float(), full_matrices=False)
    return left[:, :n_kept].contiguous(), right[:n_kept].T.contiguous()


def take_out_both(change: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return (1 - U U') change (1 - V V'): added to a matrix, it leaves U' W and W V as they are."""
    return take_out(take_out(change, right).T, left).T


def _signed(lines: torch.Tensor) -> torch.Tensor:
    """Return the lines with their largest entries positive: of two signs always the same, on every process."""
    largest = lines.gather(1, lines.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -lines, lines)

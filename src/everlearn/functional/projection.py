"""Projections of a gradient, or of a step, away from what would hurt a memory."""

from collections.abc import Callable, Sequence

import numpy
import torch
from scipy.optimize import nnls

POLISHES = 4  # where little is left of a gradient, float32 has rounded it: it is projected again
SETTLED = 3e-7  # cosine
PIECE = 1 << 12  # weights


def project_against(gradients: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> bool:
    """Remove from a gradient, in place, its component against the reference, if it points against it.

    g <- g - (g.r / r.r) r where g.r < 0. The result is the same at any scale of either.

    Args:
        gradients: tensors of the present gradient; changed in place.
        reference: tensors of the same shapes, the memory's gradient.

    Returns:
        Whether the gradient was changed.

    Source: Chaudhry et al. 2019 (A-GEM), arXiv 1812.00420, eq. 11.
    """
    along, squares = _dot(gradients, reference), _dot(reference, reference)
    if not 1e-20 < squares < 1e20 or not abs(along) < 1e20:  # float32 squares may have vanished or overflowed
        gradient_scale, reference_scale = _largest(gradients), _largest(reference)
        if not 0 < gradient_scale < float("inf") or not 0 < reference_scale < float("inf"):
            return False
        reference = [r / reference_scale for r in reference]
        along = _dot([g / gradient_scale for g in gradients], reference) * gradient_scale
        squares = _dot(reference, reference)
    if along >= 0:
        return False
    torch._foreach_add_(list(gradients), list(reference), alpha=-along / squares)
    return True


def _dot(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float:
    pairs = zip(first, second, strict=True)
    return float(torch.stack([torch.dot(a.flatten().float(), b.flatten().float()) for a, b in pairs]).sum())


def _largest(tensors: Sequence[torch.Tensor]) -> float:
    return max((float(t.abs().max()) for t in tensors if t.numel()), default=0.0)


def project_against_all(gradients: Sequence[torch.Tensor], references: torch.Tensor, margin: float = 0.0) -> bool:
    """Move a gradient, in place, the least way to where it points against none of the references.

    x = argmin |x - g|^2 with m_i.x >= 0 for all i; by the dual, x = g + sum_i v_i m_i where v minimises
    1/2 v'Kv + b'v over v >= margin, K = m_i.m_j, b = m_i.g, and all m_i and g have length 1 first: the result is the
    same at any scale of any of them. A gradient that points against none of them stays as it is.

    Args:
        gradients: tensors of the present gradient; changed in place.
        references: [n_references, n_weights], each line laid out like the gradients end to end; may be rescaled.
        margin: the least v_i, in lengths of the gradient: how much of each reference's direction is added in any case.

    Returns:
        Whether the gradient was changed.

    Cost: three passes over the references, or one where nothing is in the way; the rest has their number as its size.

    Source: Lopez-Paz & Ranzato 2017 (GEM), arXiv 1706.08840, eq. 11; margin: the end of its sec. 3.
    """
    flat, scale = _joined(gradients)
    if not len(references) or not 0 < scale < float("inf"):  # an infinite one is skipped by the loss scaler
        return False
    along = _inner(references, flat[None])
    if bool((along >= 0).all()):
        return False
    inner = _inner(references, references)
    squares = inner.diagonal()
    if bool(((squares < 1e-20) | (squares > 1e20)).any()):  # float32 squares may have vanished or overflowed
        largest = references.abs().amax(1, keepdim=True)
        references.div_(torch.where(largest > 0, largest, 1))
        along, inner = _inner(references, flat[None]), _inner(references, references)
    lengths = inner.diagonal().sqrt()
    lengths = torch.where(lengths > 0, lengths, 1)
    inner = (inner / lengths / lengths[:, None]).cpu().numpy()
    for attempt in range(1 + POLISHES):
        size = float(_inner(flat[None], flat[None])) ** 0.5
        cosines = (along[:, 0] / lengths / size).cpu().numpy()
        if attempt > 0 and cosines.min() >= -SETTLED:
            break
        weights = smallest_weights(inner, cosines, margin if attempt == 0 else 0.0)
        left = 1 + weights @ (2 * cosines + inner @ weights)  # of the gradient's squared length
        change = (torch.from_numpy(weights).to(lengths) * size / lengths).to(references) @ references
        pieces = change.split([g.numel() for g in gradients])
        changes = [piece.view_as(g).to(g.dtype) for piece, g in zip(pieces, gradients, strict=True)]
        torch._foreach_add_(list(gradients), changes, alpha=scale)
        if left > 0.1:
            break
        flat, scale = _joined(gradients)
        if scale == 0:
            break
        along = _inner(references, flat[None])
    return True


@torch.no_grad()
def project_step(
    weights: Sequence[torch.Tensor],
    before: Sequence[torch.Tensor],
    project: Callable[[Sequence[torch.Tensor]], bool],
) -> bool:
    """Move weights, in place, so that the step that led to them obeys what `project` asks of a gradient.

    A step d = w' - w raises no memory's loss, to first order, where d.m_t <= 0: so -d is projected as a gradient is.

    Args:
        weights: w'. before: w, float32. project: changes its tensors in place, and tells whether it did.

    Returns:
        Whether the weights were changed.
    """
    against = torch._foreach_sub(list(before), [w.detach().float() for w in weights])
    if not project(against):
        return False
    torch._foreach_copy_(list(weights), torch._foreach_sub(list(before), against))
    return True


def smallest_weights(inner: numpy.ndarray, along: numpy.ndarray, margin: float = 0.0) -> numpy.ndarray:
    """Return v >= margin that minimises 1/2 v'Kv + b'v, exactly, for unit vectors m_i and a unit vector g.

    With v = margin + u this is a nonnegative least-squares problem, min |A u - y| over u >= 0: [A, -y] is a square root
    of the inner products of the m_i and of g + margin * sum m_i, T + 1 lines however many weights there are.

    Args:
        inner: K, float64 [T, T], m_i.m_j; the m_i may depend on each other.
        along: b, float64 [T], m_i.g.

    Cost: T^3, some 0.1 ms for ten of them.

    Source: the active-set method of Lawson & Hanson 1974, ch. 23 (scipy.optimize.nnls).
    """
    if len(along) == 1:
        return (-along).clip(min=margin)
    shifted = along + margin * inner.sum(1)
    square = 1 + margin * (along.sum() + shifted.sum())
    values, vectors = numpy.linalg.eigh(numpy.block([[inner, shifted[:, None]], [shifted[None], square]]))
    root = numpy.sqrt(values.clip(min=0))[:, None] * vectors.T
    return nnls(root[:, :-1], -root[:, -1])[0] + margin


def _joined(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, float]:
    """Return the tensors end to end, float32, divided by their largest entry; and that entry."""
    flat = torch.cat([t.flatten().float() for t in tensors])
    largest = float(flat.abs().max())
    return (flat.div_(largest) if largest > 0 else flat), largest


def _inner(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return all inner products of lines, float64, summed over short pieces so that float32 doesn't round them off."""
    n_whole = first.shape[1] // PIECE * PIECE
    pieces = first[:, :n_whole].unflatten(1, (-1, PIECE)).transpose(0, 1)
    others = second[:, :n_whole].unflatten(1, (-1, PIECE)).permute(1, 2, 0)
    return torch.bmm(pieces, others).double().sum(0) + (first[:, n_whole:] @ second[:, n_whole:].T).double()

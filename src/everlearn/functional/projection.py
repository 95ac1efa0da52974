"""Projections of a gradient away from what would hurt a memory."""

from collections.abc import Sequence

import torch


def project_against(gradients: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> bool:
    """Remove from a gradient, in place, its component against the reference, if it points against it.

    g <- g - (g.r / r.r) r where g.r < 0. Both are normalised first, so that the result is the same at any scale.

    Args:
        gradients: tensors of the present gradient; changed in place.
        reference: tensors of the same shapes, the memory's gradient.

    Returns:
        Whether the gradient was changed.

    Source: Chaudhry et al. 2019 (A-GEM), arXiv 1812.00420, eq. 11.
    """
    gradient_norm, reference_norm = _norm(gradients), _norm(reference)
    if gradient_norm == 0 or reference_norm == 0:
        return False
    dots = [
        ((g.double() / gradient_norm) * (r.double() / reference_norm)).sum()
        for g, r in zip(gradients, reference, strict=True)
    ]
    cosine = float(torch.stack(dots).sum())
    if cosine >= 0:
        return False
    torch._foreach_add_(list(gradients), list(reference), alpha=-cosine * gradient_norm / reference_norm)
    return True


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    # scaled by the largest entry, so that squares neither overflow nor vanish
    largest = max(float(t.abs().max()) for t in tensors if t.numel())
    if largest == 0:
        return 0.0
    return largest * float(torch.stack([(t.double() / largest).square().sum() for t in tensors]).sum().sqrt())

"""GEM's quadratic program, solved by a general solver."""

import numpy
import torch
from scipy.optimize import minimize


def gem_with_one_memory(gradient: numpy.ndarray, memory: numpy.ndarray) -> torch.Tensor:
    """Return the vector nearest to the gradient with no negative component along the memory (GEM, eq. 8)."""
    size = numpy.linalg.norm(gradient)
    g, m = gradient.astype(float) / size, memory.astype(float) / numpy.linalg.norm(memory)
    found = minimize(
        lambda v: (0.5 * ((g + v[0] * m) ** 2).sum(), numpy.array([(g + v[0] * m) @ m])),
        x0=[0.0], jac=True, bounds=[(0, None)], tol=1e-14,
    )  # fmt: skip
    return torch.tensor(size * (g + found.x[0] * m), dtype=torch.float32)

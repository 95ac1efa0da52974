"""GEM's quadratic program, solved by a general solver, by quadprog, and by trying all active sets."""

from itertools import product

import numpy
import quadprog
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


def dual_by_quadprog(inner: numpy.ndarray, along: numpy.ndarray, margin: float) -> numpy.ndarray:
    """Return v >= margin that minimises 1/2 v'Kv + b'v, by the solver of the paper's own code."""
    return quadprog.solve_qp(inner, -along, numpy.eye(len(along)), numpy.full(len(along), margin))[0]


def dual_by_enumeration(inner: numpy.ndarray, along: numpy.ndarray, margin: float) -> numpy.ndarray:
    """Return the same by trying each choice of the v that stand at their bound: all others have zero slope."""
    best, least = None, numpy.inf
    for free in product((False, True), repeat=len(along)):
        free = numpy.array(free)
        v = numpy.full(len(along), margin)
        if free.any():
            slope = along[free] + inner[numpy.ix_(free, ~free)] @ v[~free]
            v[free] = numpy.linalg.lstsq(inner[numpy.ix_(free, free)], -slope, rcond=None)[0]
        value = 0.5 * v @ inner @ v + along @ v
        if (v >= margin - 1e-12).all() and value < least:
            best, least = v, value
    return best

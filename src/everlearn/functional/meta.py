"""Learning to learn: gradient steps as a function of the weights they start from, and what to change in those.

A loss is a function (weights by name, batch) -> scalar. Nothing here changes a tensor in place.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch.func import grad, grad_and_value

Batch = dict[str, torch.Tensor]
Weights = dict[str, torch.Tensor]
Loss = Callable[[Weights, Batch], torch.Tensor]


def adapt(
    loss: Loss, weights: Weights, batches: Sequence[Batch], rate: float, adapted: Collection[str] | None = None
) -> Weights:
    """Return the weights after a gradient step on each batch: w_j = w_{j-1} - rate * grad loss(w_{j-1}, batch_j).

    Differentiable with respect to `weights`, and `vmap` may map it over tasks.

    Args:
        adapted: names of the weights that move; the others stay as they are. None: all.

    Cost: a forward and a backward pass a batch.
    """
    names = weights.keys() if adapted is None else adapted
    fast = {name: weights[name] for name in names}
    for batch in batches:
        gradients = grad(lambda moving, batch=batch: loss({**weights, **moving}, batch))(fast)
        fast = {name: fast[name] - rate * gradients[name] for name in fast}
    return {**weights, **fast}


def maml_gradient(
    loss: Loss,
    weights: Weights,
    support: Sequence[Batch],
    query: Batch,
    rate: float,
    *,
    adapted: Collection[str] | None = None,
    first_order: bool = False,
) -> tuple[Weights, torch.Tensor]:
    """Return the gradient of the loss after adaptation with respect to the weights before it, and that loss.

    d loss(adapt(w, support), query) / dw. First order takes the gradient at the adapted weights in its place, as if
    d adapt(w) / dw were the identity. With `adapted` only a part moves in the inner loop, and the gradient is still
    that of all weights: OML, where the part is the prediction network; ANML, where it is all but the gate.

    Returns:
        ({name: gradient}, scalar loss).

    Cost: with n batches in `support`, first order n + 1 forward and backward passes; second order several times that,
    and the memory of all n graphs.
    Source: Finn et al. 2017, arXiv 1703.03400, algorithm 2; first order: its section 5.2. Javed & White 2019, arXiv
        1905.12588, algorithm 2. Beaulieu et al. 2020, arXiv 2002.09571, section 2.
    """
    if first_order:
        gradients, value = grad_and_value(loss)(adapt(loss, weights, support, rate, adapted), query)
    else:
        gradients, value = grad_and_value(lambda start: loss(adapt(loss, start, support, rate, adapted), query))(
            weights
        )
    return gradients, value


def towards(start: Weights, end: Weights, share: float) -> Weights:
    """Return start + share * (end - start), the step of Reptile.

    Source: Nichol et al. 2018, arXiv 1803.02999, algorithm 1.
    """
    return {name: tensor + share * (end[name] - tensor) for name, tensor in start.items()}


def reptile_gradient(loss: Loss, weights: Weights, support: Sequence[Batch], rate: float) -> Weights:
    """Return w - adapt(w, support): what gradient descent must subtract to take the step of Reptile.

    Cost: a forward and a backward pass a batch.
    Source: Nichol et al. 2018, arXiv 1803.02999, algorithm 2: the mean of adapt(w) - w over tasks is added.
    """
    end = adapt(loss, weights, support, rate)
    return {name: weights[name] - end[name] for name in weights}


def mer_weights(
    loss: Loss, weights: Weights, batches: Sequence[Sequence[Batch]], rate: float, within: float, across: float
) -> Weights:
    """Return the weights after one step of Meta-Experience Replay.

    Within each batch, gradient steps on its rows one by one, of which the share `within` is kept; across the batches,
    the share `across` of what they came to together:
    w_0 = w; w_i = towards(w_{i-1}, adapt(w_{i-1}, batch_i), within); w' = towards(w, w_s, across).

    Args:
        batches: s batches, each k single rows: the present one, and rows from the memory.

    Cost: s * k forward and backward passes.
    Source: Riemer et al. 2019, arXiv 1810.11910, algorithm 1; rate, within and across are its alpha, beta and gamma.
    """
    moved = weights
    for rows in batches:
        moved = towards(moved, adapt(loss, moved, rows, rate), within)
    return towards(weights, moved, across)

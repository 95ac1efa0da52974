"""The diagonal of the Fisher information, per example: it doesn't change with the batch size."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ConfigError, describe
from everlearn.functional.per_example import Batch, add_row_gradients, linear_layers
from everlearn.types import Outputs

KINDS = ("exact", "sampled", "empirical")
MAX_EXACT_CLASSES = 1000  # exact takes one backward pass a class


def sum_of_squared_gradients(
    network: nn.Module,
    parameters: dict[str, nn.Parameter],
    batches: Iterable[Batch],
    forward: Callable[[Batch], Outputs],
    kind: str = "sampled",
    generator: torch.Generator | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[dict[str, torch.Tensor], int]:
    """Sum over examples the squared gradient of each example's log-likelihood: n times the diagonal of the Fisher.

    F_ii = mean_n E_{y ~ p(y|x_n)} [(d log p(y|x_n) / d w_i)^2]. An example is a batch row; for language models its
    log-likelihood is the sum over its target tokens ("per sequence"). `exact` takes the expectation over all classes
    (one target a row only), `sampled` one draw of y from the model, `empirical` the y of the data (which vanishes as
    the data is fitted, and is then no estimate of the curvature).

    Args:
        network: left in the mode and with the gradients it came with; call it in eval mode for a deterministic result.
        parameters: {name: trainable parameter} to compute it for.
        batches: on the network's device; first dimension of each tensor = examples.
        forward: batch -> outputs.
        generator: for `sampled`, on the CPU. It seeds each example's own draws, so that these don't depend on how
            examples are batched or shared out.
        rank, world_size: process all batches are passed to, of how many; it takes every `world_size`-th.

    Returns:
        ({name: float32, shape of the parameter}, number of examples of this process). Unit: (nats per weight)^2.

    Raises:
        ConfigError: if `exact` meets several targets a row, or more than MAX_EXACT_CLASSES classes.

    Cost: where all parameters are weights or biases of `nn.Linear` (LoRA is), about one forward and one backward pass
    (exact: one backward a class). Else one pass for each single example.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3; the kinds: van de Ven 2025, arXiv 2502.11756.
    """
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    layers = linear_layers(network, parameters)
    n_examples = 0
    for number, batch in enumerate(batches):
        n_rows = len(next(iter(batch.values())))
        seeds = torch.randint(2**62, (n_rows,), generator=generator).tolist() if kind == "sampled" else [0] * n_rows
        if number % world_size != rank:
            continue
        n_examples += n_rows

        def scalars(part: Batch, rows: list[int], seeds: list[int] = seeds) -> list[torch.Tensor]:
            return _losses(forward(part), kind, [seeds[row] for row in rows])

        add_row_gradients(parameters, layers, batch, scalars, 2, sums)
    return sums, n_examples


def _losses(outputs: Outputs, kind: str, seeds: list[int]) -> list[torch.Tensor]:
    """Return the scalars whose per-example gradients are squared and summed. `seeds`: one for each batch row."""
    logits = outputs.logits.float()
    if outputs.binary:
        return _binary_losses(logits, outputs.targets.float(), kind, seeds)
    if outputs.targets.is_floating_point():
        return _regression_losses(logits, outputs.targets.float(), kind, seeds)
    log_p = F.log_softmax(logits, dim=-1)
    if kind == "empirical":
        return [log_p.gather(1, outputs.targets[:, None]).sum()]
    if kind == "sampled":
        return [log_p.gather(1, draw(log_p.detach().exp(), outputs.owners, seeds)).sum()]
    n_classes = log_p.shape[1]
    if n_classes > MAX_EXACT_CLASSES or len(outputs.owners.unique()) != len(outputs.owners):
        got = f"{n_classes} classes, {len(outputs.owners)} targets in {len(outputs.owners.unique())} rows"
        way_out = f"Use fisher: sampled; exact is for one target a row and up to {MAX_EXACT_CLASSES} classes"
        raise ConfigError(
            describe("fisher", "exact would take a backward pass for each class of each target", got, way_out)
        )
    root_p = log_p.detach().exp().sqrt()
    return [(root_p[:, c] * log_p[:, c]).sum() for c in range(n_classes) if root_p[:, c].any()]


def draw(p: torch.Tensor, owners: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Draw a class from each line of probabilities [n_items, n_classes], by each row's seed: [n_items, 1]."""
    counts = torch.bincount(owners, minlength=len(seeds)).tolist()
    uniform = torch.cat(
        [torch.rand(n, generator=torch.Generator().manual_seed(s)) for n, s in zip(counts, seeds, strict=True)]
    )
    reached = p.double().cumsum(1)
    below = uniform.to(p.device, torch.float64)[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, below, right=True).clamp_(max=p.shape[1] - 1)


def _binary_losses(logits: torch.Tensor, targets: torch.Tensor, kind: str, seeds: list[int]) -> list[torch.Tensor]:
    """Each class by itself: d log p / d logit = y - p, whose expected square is p (1 - p)."""
    p = logits.detach().sigmoid()
    if kind == "exact":
        spread = (p * (1 - p)).sqrt()
        return [(spread[:, c] * logits[:, c]).sum() for c in range(logits.shape[1]) if spread[:, c].any()]
    drawn = targets if kind == "empirical" else draw_binary(p, seeds)
    return [((drawn - p) * logits).sum()]


def draw_binary(p: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Draw whether each class is there, 1.0 or 0.0, by each row's seed: [n_rows, n_classes]. p: its chance."""
    uniform = [torch.rand(p.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return (torch.stack(uniform).to(p.device) < p).to(p.dtype)


def _regression_losses(
    predicted: torch.Tensor, targets: torch.Tensor, kind: str, seeds: list[int]
) -> list[torch.Tensor]:
    """Gaussian of unit variance: d log p / d prediction = y - prediction, whose expected square is 1 per output."""
    predicted = predicted.flatten(1)
    if kind == "exact":
        return [predicted[:, k].sum() for k in range(predicted.shape[1])]
    if kind == "sampled":
        drawn = [torch.randn(predicted.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        noise = torch.stack(drawn).to(predicted.device)
    else:
        noise = targets.view_as(predicted) - predicted.detach()
    return [(noise * predicted).sum()]

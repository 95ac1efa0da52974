"""The Fisher in Kronecker factors, a block for each linear layer: what its inputs do times what its outputs do."""

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from everlearn.errors import ConfigError, describe
from everlearn.functional.fisher import draw, draw_binary
from everlearn.functional.per_example import Batch, linear_layers
from everlearn.types import Family, Outputs

LOSSES: dict[Family, type[nn.Module]] = {
    "categorical": nn.CrossEntropyLoss,
    "bernoulli": nn.BCEWithLogitsLoss,
    "normal": nn.MSELoss,
}

Factors = dict[str, dict[str, torch.Tensor]]  # "layer.weight layer.bias" -> {"inputs": A, "gradients": B}


def check_installed(where: str) -> None:
    """Raise ConfigError where curvlinops is missing."""
    if importlib.util.find_spec("curvlinops") is None:
        # by itself it would bring torchvision, which it never uses and which may not fit the torch that is there
        way_out = (
            "Install it: pip install -c constraints.txt 'everlearn[kfac]' && "
            "pip install -c constraints.txt --no-deps curvlinops-for-pytorch"
        )
        raise ConfigError(describe(where, "curvlinops is not installed", "kfac", way_out))


def check_layers(where: str, network: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    """Raise ConfigError unless all the parameters are weights and biases of linear layers, in float32."""
    others = sorted({str(p.dtype) for p in parameters.values()} - {"torch.float32"})
    if others:
        raise ConfigError(describe(where, "kfac needs float32 weights", others, "Set model.dtype: float32"))
    if linear_layers(network, parameters) is None:
        way_out = "Train linear layers only (LoRA, heads, an MLP), or use fisher: sampled"
        raise ConfigError(describe(where, "kfac is for linear layers, and others are trained too", "kfac", way_out))


def kronecker_factors(
    network: nn.Module,
    parameters: dict[str, nn.Parameter],
    batches: Iterable[Batch],
    forward: Callable[[Batch], Outputs],
    generator: torch.Generator,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[Factors, int]:
    """Return sums over examples from which each linear layer's block of the Fisher is made: F = (B/n) (x) (A/n).

    A: mean over positions of a a^T, a the layer's input with a 1 behind it where its bias is trained. B: sum over
    positions of g g^T, g the gradient of the log-likelihood at the layer's output, of targets drawn from the model.
    What positions of one row have to do with each other is left out (KFAC-expand).

    Args:
        network: left as it came; call it in eval mode.
        parameters: {name: trainable parameter} of linear layers (`check_layers`).
        batches: on the network's device; padded ones are taken apart by length, so that padding doesn't count.
        generator: seeds each row's own draws, which don't depend on how rows are batched or shared out.
        rank, world_size: process all batches are passed to, of how many; it takes every `world_size`-th.

    Returns:
        ({names of the layer's parameters: factors}, all zero for layers that weren't used; examples of this process).

    Cost: two forward passes and a backward pass; in^2 + out^2 numbers a layer.

    Source: Martens & Grosse 2015, arXiv 1503.05671; weight sharing: Eschenhagen et al. 2023, arXiv 2311.00636, through
    curvlinops.
    """
    blocks = {" ".join(names.values()): layer for layer, names in linear_layers(network, parameters).items()}
    sums = {names: _zeros(layer, names) for names, layer in blocks.items()}
    pieces, n_examples = [], 0
    for number, batch in enumerate(batches):
        n_rows = len(next(iter(batch.values())))
        seeds = torch.randint(2**62, (n_rows,), generator=generator).tolist()
        if number % world_size != rank:
            continue
        n_examples += n_rows
        for rows, piece in _by_length(batch, n_rows):
            with torch.no_grad():
                outputs = forward(piece)
            pieces.append((piece, _draw_targets(outputs, [seeds[row] for row in rows])))
    if not pieces:
        return sums, 0
    model = _Logits(network, forward)
    used = _used(model, pieces[0][0], parameters)
    # gradients at drawn targets are its "empirical" Fisher; its own draws would depend on the batches
    found = _curvlinops(model, list(used.values()), pieces, outputs.family)
    names_of = {layer: names for names, layer in blocks.items()}
    for path, gradients in found["gradient_covariances"].items():
        factors = sums[names_of[model.get_submodule(path)]]
        factors["gradients"] += gradients
        factors["inputs"] += found["input_covariances"].get(path, float(n_examples))
    return sums, n_examples


def curvature_product(factors: Factors, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return {names: B V A} for the layers whose parameters are all in `values`: F v, laid out like V.

    V [out, in] or [out, in + 1]: the layer's weight, and its bias behind it.
    """
    stacks = {names: _stack(names, values) for names in factors}
    return {
        names: factors[names]["gradients"] @ stack @ factors[names]["inputs"]
        for names, stack in stacks.items()
        if stack is not None
    }


@torch.no_grad()
def add_kronecker_gradients(
    parameters: dict[str, nn.Parameter], tasks: list[Factors], pull: dict[str, torch.Tensor], strength: float
) -> None:
    """Add to `.grad` that of 1/2 * strength * sum_k (w - w_k)^T F_k (w - w_k), given pull = sum_k F_k w_k.

    A sum of Kronecker products is none, so that each task's factors are kept; what they pull to is merged. Layers of
    which a part is not trained any more are left alone.
    """
    values = {name: p for name, p in parameters.items() if p.grad is not None}
    for names, target in pull.items():
        stack = _stack(names, values)
        if stack is None:
            continue
        change = -target
        for factor in (task[names] for task in tasks if names in task):
            change.addmm_(factor["gradients"] @ stack, factor["inputs"])
        pieces = change.split([1 if values[name].ndim == 1 else values[name].shape[1] for name in names.split()], 1)
        for name, piece in zip(names.split(), pieces, strict=True):
            values[name].grad.add_(piece.reshape(values[name].shape), alpha=strength)


def _stack(names: str, values: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Return a layer's weight with its bias behind it, or None where one is missing."""
    present = [values[name] for name in names.split() if name in values]
    if len(present) < len(names.split()):
        return None
    return torch.cat([value if value.ndim == 2 else value[:, None] for value in present], 1)


class _Logits(nn.Module):
    """A network whose call returns the logits of a batch alone, as curvlinops wants it."""

    def __init__(self, network: nn.Module, forward: Callable[[Batch], Outputs]):
        super().__init__()
        self.network = network
        self._outputs = forward

    def forward(self, batch: Batch) -> torch.Tensor:
        return self._outputs(batch).logits.float().flatten(1)


def _draw_targets(outputs: Outputs, seeds: list[int]) -> torch.Tensor:
    """Draw targets from the model, by each row's seed; for regression those at which MSELoss has a drawn gradient."""
    if outputs.binary:
        return draw_binary(outputs.logits.float().sigmoid(), seeds)
    if not outputs.targets.is_floating_point():
        return draw(outputs.logits.float().softmax(-1), outputs.owners, seeds)[:, 0]
    predicted = outputs.logits.float().flatten(1)
    noise = [torch.randn(predicted.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return predicted - torch.stack(noise).to(predicted.device) / 2  # d (f - y)^2 / d f = 2 (f - y) = noise


def _zeros(layer: nn.Linear, names: str) -> dict[str, torch.Tensor]:
    kinds = [name.rpartition(".")[2] for name in names.split()]
    n_inputs = layer.in_features * ("weight" in kinds) + ("bias" in kinds)
    zeros = layer.weight.new_zeros
    return {"inputs": zeros(n_inputs, n_inputs), "gradients": zeros(layer.out_features, layer.out_features)}


def _by_length(batch: Batch, n_rows: int) -> Iterator[tuple[list[int], Batch]]:
    """Yield (row indices, those rows without padding) for each length."""
    mask = batch.get("attention_mask")
    if mask is None or bool(mask.all()):
        yield list(range(n_rows)), batch
        return
    lengths = mask.sum(1)
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        columns = mask[rows[0]].bool()
        yield (
            rows.tolist(),
            {name: t[rows][:, columns] if t.shape[1:2] == mask.shape[1:] else t[rows] for name, t in batch.items()},
        )


def _used(model: nn.Module, batch: Batch, parameters: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return the parameters that the model's answers depend on: not those of other tasks' heads."""
    with torch.enable_grad():
        found = torch.autograd.grad(model(batch).sum(), list(parameters.values()), allow_unused=True)
    return {name: p for (name, p), gradient in zip(parameters.items(), found, strict=True) if gradient is not None}


def _curvlinops(
    model: nn.Module, parameters: list[nn.Parameter], pieces: list, family: Family
) -> dict[str, dict[str, torch.Tensor]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its linear_operator scripts functions when imported
        from curvlinops import KFACLinearOperator
    operator = KFACLinearOperator(
        model,
        LOSSES[family](reduction="sum"),
        parameters,
        pieces,
        check_deterministic=False,
        fisher_type="empirical",
        num_per_example_loss_terms=1,
        separate_weight_and_bias=False,
        num_data=1,  # for sums over examples
        batch_size_fn=lambda batch: len(next(iter(batch.values()))),
    )
    with torch.enable_grad():
        operator.compute_kronecker_factors()
    return operator.state_dict()

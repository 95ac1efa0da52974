"""Gradient signal: in which direction a task would move the frozen base, as a sketch of its gradient."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from everlearn.errors import ConfigError, describe
from everlearn.experts.signals.passes import Pass
from everlearn.models.adapters import language_model
from everlearn.seeds import generator_for

SIDES = (64, 64)


class GradientSketch:
    """Sketches of the gradients that a loss has with respect to the weights of some linear layers.

    Of a layer y = W x the gradient of one row is the sum over positions of δ xᵀ, δ the loss's gradient with respect to
    y. Its sketch is the sum of (S δ)(R x)ᵀ = S G Rᵀ, [p, q], with Gaussian S [p, outputs] and R [q, inputs] of variance
    1/p and 1/q: no gradient of a weight is ever made. Inner products of sketches are unbiased; of rank-one gradients
    with themselves their relative variance is (1 + 2/p)(1 + 2/q) - 1. What is stored is projected once more, each
    layer's sketches to their share of `size` numbers.

    The graph begins at the first of the layers, so that a backward pass goes down to it and no further.

    Args:
        layers: {name without peft: (outputs, inputs)}. size: of what is stored, over all layers.
        seed: of the projections, which depend on it, the layer's name and the sizes, and are kept nowhere.

    Source: Choe et al. 2024, What is your data worth to GPT? (LoGra), for the projection from both sides in hooks.
    """

    def __init__(
        self, network: nn.Module, layers: Mapping[str, tuple[int, int]], size: int, seed: int = 0,
        sides: tuple[int, int] = SIDES,
    ):  # fmt: skip
        if size < len(layers):
            way_out = f"Give at least {len(layers)}, a number for each layer"
            raise ConfigError(describe("signals: sketch_size", "is too small for the layers", size, way_out))
        self.layers, self.size, self.sides = list(layers), size, sides
        device = next(network.parameters()).device
        modules = dict(language_model(network).named_modules())
        self._modules = {name: modules.get(f"{name}.base_layer", modules[name]) for name in layers}
        self._projections = {
            name: tuple(
                _gaussian(n_kept, n, (seed, name, side)).to(device)
                for n_kept, n, side in zip(sides, shape, ("outputs", "inputs"), strict=True)
            )
            for name, shape in layers.items()
        }
        self._seed = seed

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[Callable[[], dict[str, torch.Tensor]]]:
        """Catch sketches until the block ends. Meanwhile no parameter requires gradients.

        Yields:
            A function to be called after `backward`, of the sum of the rows' losses: {layer: sketches of the rows
            [n_rows, p, q]}. A layer that the loss doesn't depend on is missing.
        """
        caught: dict[str, torch.Tensor] = {}
        flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
        network.requires_grad_(False)
        handles = [module.register_forward_hook(self._hook(name, caught)) for name, module in self._modules.items()]

        def take() -> dict[str, torch.Tensor]:
            taken = dict(caught)
            caught.clear()
            return taken

        try:
            yield take
        finally:
            for handle in handles:
                handle.remove()
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

    def stored(self, sketches: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what is kept of a task's rows, [size] on the CPU.

        Each row's sketch in each layer is scaled to norm 1 before the mean over rows, for short answers have the
        larger gradients; each layer is projected to its share of the numbers.

        Args:
            sketches: {layer: [n_rows, p, q]}, of all layers.
        """
        shares = torch.tensor_split(torch.arange(self.size), len(self.layers))
        kept = []
        for name, share in zip(self.layers, shares, strict=True):
            mean = nn.functional.normalize(sketches[name].flatten(1), dim=1).mean(0).cpu()
            kept.append(_gaussian(len(share), len(mean), (self._seed, name, "stored")) @ mean)
        return torch.cat(kept)

    def _hook(self, name: str, caught: dict[str, torch.Tensor]) -> Callable[..., None]:
        left, right = self._projections[name]

        def watch(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            if not torch.is_grad_enabled():
                return
            if not output.requires_grad:  # the graph begins here
                output.requires_grad_()
            x = inputs[0].detach().float() @ right.T

            def catch(delta: torch.Tensor) -> None:
                d = delta.float() @ left.T
                sketch = torch.einsum("btp,btq->bpq", d.view(len(d), -1, d.shape[-1]), x.view(len(x), -1, x.shape[-1]))
                caught[name] = caught[name] + sketch if name in caught else sketch  # a layer that is used twice

            output.register_hook(catch)

        return watch


def row_sketches(
    sketch: GradientSketch, network: nn.Module, passes: Iterable[Pass], seen: Callable[[Pass], None] | None = None
) -> dict[str, torch.Tensor]:
    """Return {layer: sketches of the rows' gradients [n_rows, p, q]} over passes, each of which `seen` is shown.

    Only layers that every pass's losses depend on are in it.
    """
    found: list[dict[str, torch.Tensor]] = []
    with torch.enable_grad(), sketch.watching(network) as take:
        for one in passes:
            one.losses.sum().backward()
            found.append(take())
            if seen is not None:
                seen(one)
    names = [name for name in sketch.layers if all(name in each for each in found)]
    return {name: torch.cat([each[name] for each in found]) for name in names}


def _gaussian(n_rows: int, n_columns: int, purpose: Sequence[Any]) -> torch.Tensor:
    """Return a random matrix whose product with a vector has the vector's squared length on average."""
    return torch.randn(n_rows, n_columns, generator=generator_for("sketch", *purpose)) / n_rows**0.5

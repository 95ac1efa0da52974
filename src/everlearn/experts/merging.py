"""One LoRA out of several, by peft: laid side by side, or their matrices B A added and taken apart again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.experts.base import Base
from everlearn.experts.lora import PREFIX, Lora, lora_config
from everlearn.models.adapters import quiet_peft
from everlearn.seeds import seed_for

KINDS = ("cat", "svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
_SPARSE = ("ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
_APART = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")  # of peft, on A and B each by itself


@dataclass(frozen=True)
class Merge:
    """How experts are merged.

    Args:
        kind: cat: exactly the weighted sum, its rank the sum of theirs. svd: the sum cut to `rank`. ties_svd (Yadav et
            al. 2023), dare_linear_svd, dare_ties_svd (Yu et al. 2024), magnitude_prune_svd: the matrices are thinned
            to `density` first.
        weights: one for each expert; by default each counts the same, and they sum to 1.
        rank: of the result, where it is cut; by default the largest of theirs.
        density: share of a matrix's numbers that stay. seed: of the numbers that DARE drops.
    """

    kind: str = "svd"
    weights: tuple[float, ...] | None = None
    rank: int | None = None
    density: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind in _APART:
            what = "acts on A and B by themselves, which is another thing than adding the experts"
            way_out = f"Use {self.kind}_svd" if f"{self.kind}_svd" in KINDS else "Use svd, or cat"
            raise ConfigError(describe("merge: kind", what, self.kind, way_out))
        check_choice("merge: kind", self.kind, KINDS)
        for weight in self.weights or ():
            check_number("merge: weights", weight)
        if self.rank is not None:
            check_number("merge: rank", self.rank, low=1)
            if self.kind == "cat":
                raise ConfigError(describe("merge: rank", "cat cuts nothing", self.rank, "Leave it out, or use svd"))
        if self.kind in _SPARSE:
            check_number("merge: density", self.density, above=0, high=1)
        elif self.density is not None:
            way_out = f"Leave it out, or use {', '.join(_SPARSE)}"
            raise ConfigError(describe("merge: density", f"{self.kind} thins nothing", self.density, way_out))


def merged(loras: Sequence[Lora], how: Merge, base: Base) -> Lora:
    """Return one LoRA, of scale 1, made of several of the same base.

    Raises:
        ConfigError: if they are fewer than two, or the weights don't fit.
    Cost: nothing of the base is loaded. cat: a copy. Others: an SVD of each layer's whole matrix, O(outputs * inputs *
        min(outputs, inputs)), and in memory one such matrix for each expert.
    Source: peft's `add_weighted_adapter`. Departs: weights count as given also where experts use rslora, and ranks
        beyond a layer's size are filled with zeros.
    """
    if len(loras) < 2:
        raise ConfigError(describe("merge", "needs two experts or more", len(loras), "Name those to merge"))
    weights = how.weights or (1 / len(loras),) * len(loras)
    if len(weights) != len(loras):
        raise ConfigError(describe("merge: weights", f"should be {len(loras)}", weights, "Give one for each expert"))
    with quiet_peft(), torch.random.fork_rng():
        torch.manual_seed(seed_for(how.seed, "merge"))
        network = _network(loras, base)
        network.base_model.add_weighted_adapter(
            [_name(i) for i in range(len(loras))], list(weights), "merged", combination_type=how.kind,
            svd_rank=how.rank, svd_full_matrices=False, density=how.density,
        )  # fmt: skip
    layers = {name.removeprefix(PREFIX): layer for name, layer in _layers(network).items()}
    rank = network.peft_config["merged"].r
    tensors = {}
    for name, layer in layers.items():
        down, up = layer.lora_A["merged"].weight.detach(), layer.lora_B["merged"].weight.detach()
        missing = rank - len(down)
        tensors[f"{PREFIX}{name}.lora_A.weight"] = nn.functional.pad(down, (0, 0, 0, missing)).contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = nn.functional.pad(up, (0, missing)).contiguous()
    return Lora(lora_config(rank, rank, sorted(layers), loras[0].config), tensors)


def _network(loras: Sequence[Lora], base: Base) -> PeftModel:
    """Return a network with the LoRAs on layers of the base's names and shapes, whose own weights are never touched."""
    skeleton = nn.Module()
    for name in sorted({name for lora in loras for name in lora.layers}):
        parent = skeleton
        *path, last = name.split(".")
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        outputs, inputs = base.layers[name]
        parent.add_module(last, nn.Linear(inputs, outputs, bias=False, device="meta").to_empty(device="cpu"))
    network = None
    for i, lora in enumerate(loras):
        config = LoraConfig(r=lora.rank, target_modules=lora.layers, rank_pattern=_ranks(lora))
        if network is None:
            network = get_peft_model(skeleton, config, adapter_name=_name(i))
        else:
            network.add_adapter(_name(i), config)
        _fill(network, _name(i), lora)
    return network


@torch.no_grad()
def _fill(network: PeftModel, name: str, lora: Lora) -> None:
    layers = _layers(network)
    for layer_name in lora.layers:
        layer, weights = layers[f"{PREFIX}{layer_name}"], lora.layer(layer_name)
        layer.lora_A[name].weight.copy_(weights.down)
        layer.lora_B[name].weight.copy_(weights.up)
        layer.scaling[name] = weights.scaling


def _ranks(lora: Lora) -> dict[str, int]:
    """Return {layer: rank} where it isn't the largest, as a pattern of peft."""
    ranks = {name: len(lora.layer(name).down) for name in lora.layers}
    return {re.escape(name): rank for name, rank in ranks.items() if rank != lora.rank}


def _layers(network: PeftModel) -> dict[str, LoraLayer]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, LoraLayer)}


def _name(position: int) -> str:
    return f"expert{position:03d}"

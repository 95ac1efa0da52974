"""Several LoRAs in one model: the earlier ones laid together and frozen, beside the one that is trained."""

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ModelError, describe
from everlearn.registry import register
from everlearn.seeds import seed_for

if TYPE_CHECKING:
    from everlearn.models.adapters import Adapters
    from everlearn.types import Step
    from everlearn.way import Run

PAST = "past"  # name of the adapter that holds the earlier LoRAs
NOT_BESIDE_NEW_LORAS = dict.fromkeys(
    ("inclora", "olora", "inflora"),
    "one begins a LoRA of its own for every task, the other keeps what is of use to one LoRA that all tasks share",
)


@register("operation", "new_lora")
def new_lora(adapters: "Adapters", *, seed: int) -> None:
    """Lay the LoRA in training beside the earlier ones, and begin a new one that adds nothing yet.

    The earlier ones become one adapter of their summed rank, sum_i B_i A_i = [B_1 B_2 ...] [A_1; A_2; ...]: a forward
    pass costs two matrix products a layer more than one LoRA does, however many there were. (peft itself would loop
    over them.) They are to be frozen by the operation `freeze`; `begin_lora` does both.
    """
    network: PeftModel = adapters.network
    number = 2 + sum(operation == "new_lora" for operation, _ in adapters.log)
    flags = {id(p): p.requires_grad for p in network.parameters()}
    trained, layers = network.active_adapter, lora_layers(network)
    config: LoraConfig = network.peft_config[trained]
    stacked = {name: stack(layer) for name, layer in layers.items()}
    network.set_adapter(trained)  # peft warns where an active adapter is deleted
    if PAST in network.peft_config:
        network.delete_adapter(PAST)
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "lora", number))
        network.add_adapter(f"task_{number}", copy.deepcopy(config))
        network.add_adapter(PAST, stacked_config(config, next(iter(stacked.values()))[0].shape[0]))
    network.set_adapter(f"task_{number}")
    network.delete_adapter(trained)
    network.base_model.set_adapter([PAST, f"task_{number}"])
    with torch.no_grad():
        for name, (down, up) in stacked.items():
            layers[name].lora_A[PAST].weight.copy_(down)
            layers[name].lora_B[PAST].weight.copy_(up)
    for parameter in network.parameters():  # peft freezes heads, and whatever else it doesn't know
        parameter.requires_grad_(flags.get(id(parameter), True))


def begin_lora(adapters: "Adapters", seed: int) -> None:
    """Go on with a new LoRA, the earlier ones frozen."""
    adapters.do("new_lora", seed=seed)
    names = [name for name, _ in adapters.network.named_parameters() if f".{PAST}." in name and ".lora_" in name]
    adapters.do("freeze", parameters=names)


def next_lora(run: "Run") -> None:
    """Begin a LoRA for a run's next task; what strategies keep for weights that are gone with that is let go."""
    before = dict(run.model.network.named_parameters()).keys()
    begin_lora(run.model.adapters, run.seed)
    gone = before - dict(run.model.network.named_parameters()).keys()
    for state in (*(strategy.state() for strategy in run.strategies), *run.dormant.values()):
        for kept in state.values():
            for name in gone & kept.keys() if isinstance(kept, dict) else ():
                del kept[name]


@torch.no_grad()
def hold_new_lora(step: "Step", known: Collection[str], strength: float) -> None:
    """Add to `.grad` that of 1/2 * strength * sum over layers |s B A|^2, of a LoRA that was begun beside earlier ones.

    It began with adding nothing, so s B A is how far the layer's whole matrix has come since then.

    Args:
        known: names of weights that are held otherwise: a LoRA among them isn't new.

    Cost: 4 rank^2 (inputs + outputs) operations a layer.
    """
    network = step.run.model.network
    if not isinstance(network, PeftModel) or PAST not in network.peft_config or strength == 0:
        return
    new = network.active_adapter
    for name, layer in lora_layers(network).items():
        names = f"{name}.lora_A.{new}.weight", f"{name}.lora_B.{new}.weight"
        if any(one in known for one in names):
            continue
        down, up, weight = layer.lora_A[new].weight, layer.lora_B[new].weight, strength * layer.scaling[new] ** 2
        if down.grad is not None:
            down.grad.addmm_(up.T @ up, down, alpha=weight)
        if up.grad is not None:
            up.grad.addmm_(up, down @ down.T, alpha=weight)


def lora_layers(network: PeftModel) -> dict[str, LoraLayer]:
    """Return {name: layer} of all layers with LoRA.

    Raises:
        ModelError: if one of them isn't a linear map.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, LoraLayer)}
    for name, layer in layers.items():
        if not all(isinstance(matrix, nn.Linear) for matrix in layer.lora_A.values()) or not layer.lora_A:
            way_out = "Name only linear layers in model.adapter.targets"
            raise ModelError(describe("LoRA", "the method needs linear layers", name, way_out))
    return layers


def stack(layer: LoraLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the layer's active LoRAs as one of scale 1: A [sum of ranks, in_features], B [out_features, same]."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    down = torch.cat([matrix_of(layer.lora_A[name]) for name in active])
    up = torch.cat([matrix_of(layer.lora_B[name]) * layer.scaling[name] for name in active], dim=1)
    return down.detach(), up.detach()


def laid_back(network: nn.Module, kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return earlier weights of a model whose first LoRA `new_lora` has laid into the adapter PAST since.

    There it is the first of those laid together; those after it, and the one in training, count 0.

    Args:
        kept: {name: value} of weights that were trained, under the names of then.
    """
    found = dict(kept)
    for name, layer in network.named_modules():
        first = [key for key in kept if key.startswith(f"{name}.lora_A.")] if isinstance(layer, LoraLayer) else []
        if not first or PAST not in layer.lora_A:
            continue
        (new,) = (one for one in layer.active_adapters if one != PAST)
        down, up = found.pop(first[0]), found.pop(first[0].replace(".lora_A.", ".lora_B.")) * layer.scaling[new]
        past = layer.lora_A[PAST].weight, layer.lora_B[PAST].weight
        laid = [torch.zeros_like(weight) for weight in past]
        laid[0][: len(down)], laid[1][:, : up.shape[1]] = down, up
        found |= {f"{name}.lora_A.{PAST}.weight": laid[0], f"{name}.lora_B.{PAST}.weight": laid[1]}
    return found


def stacked_config(config: LoraConfig, rank: int) -> LoraConfig:
    """Return the configuration of an adapter that holds what `stack` returns."""
    config = copy.deepcopy(config)
    config.r = config.lora_alpha = rank
    config.lora_dropout, config.use_rslora = 0.0, False
    return config


class ScaledLinear(nn.Linear):
    """A linear map without bias whose outputs are each multiplied by a trainable number: y = vector * (W x)."""

    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight
        self.vector = nn.Parameter(torch.ones_like(linear.weight[:, 0]))
        self.register_parameter("bias", None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # on the matrix rather than on the outputs: a low-rank matrix has fewer numbers than a batch
        return F.linear(inputs, self.matrix())

    def matrix(self) -> torch.Tensor:
        """Return the matrix of the whole map."""
        return self.weight * self.vector[:, None]

    def fold(self) -> nn.Linear:
        """Return the same map as a plain layer."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(self.matrix().detach(), requires_grad=False)
        return linear


def matrix_of(linear: nn.Linear) -> torch.Tensor:
    """Return the matrix that a LoRA's layer multiplies by."""
    return linear.matrix() if isinstance(linear, ScaledLinear) else linear.weight


def fold_vectors(network: PeftModel) -> None:
    """Replace each ScaledLinear by a plain layer, for use without everlearn."""
    for layer in [module for module in network.modules() if isinstance(module, LoraLayer)]:
        for matrices in (layer.lora_A, layer.lora_B):
            for name, linear in matrices.items():
                if isinstance(linear, ScaledLinear):
                    matrices[name] = linear.fold()

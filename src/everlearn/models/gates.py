"""Gates over the units of a layer: soft while a task learns which units it wants, 0 or 1 when it answers."""

from dataclasses import dataclass

import torch
from torch import nn

from everlearn.models.adapters import Adapters, is_peft
from everlearn.models.isolation import linear_chain
from everlearn.models.lora import lora_layers
from everlearn.registry import register
from everlearn.seeds import seed_for


class Gate(nn.Module):
    """A number in 0..1 for each unit: sigmoid(sharpness * embedding) in training, embedding > 0 in evaluation.

    `chosen` replaces it: what an earlier task settled on, while that task is scored.
    """

    def __init__(self, n_units: int, device: torch.device):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(n_units, device=device))
        self.register_buffer("sharpness", torch.ones((), device=device))
        self.chosen: torch.Tensor | None = None

    def values(self) -> torch.Tensor:
        """Return the gate of each unit [n_units]."""
        if self.chosen is not None:
            return self.chosen
        if self.training:
            return torch.sigmoid(self.sharpness * self.embedding)
        return (self.embedding > 0).to(self.embedding.dtype)


@dataclass(frozen=True)
class GatedLayer:
    """A linear map and the names of the gates on its outputs and inputs; None where these are not gated."""

    weight: str
    bias: str | None
    outputs: str | None
    inputs: str | None


@register("operation", "open_gates")
def open_gates(adapters: Adapters, *, number: int, seed: int, sharpness: float) -> None:
    """Draw new embeddings, N(0, 1), for a task; put the gates in first where there are none.

    Gated are the inputs of every linear map of an MLP but the first; of a LoRA, the `rank` numbers between A and B.

    Raises:
        ModelError: if the network is neither a LoRA model nor an MLP.
    """
    if not gates_of(adapters.network):
        gated = linear_chain(adapters.network)[1:] if not is_peft(adapters.network) else []
        if is_peft(adapters.network):
            gated = [layer.lora_B["default"] for layer in lora_layers(adapters.network).values()]
        for linear in gated:
            linear.add_module("gate", Gate(linear.in_features, linear.weight.device))
            linear.register_forward_pre_hook(_through_gate)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed_for(seed, "gates", number))
        for gate in gates_of(adapters.network).values():
            gate.embedding.normal_()
            gate.sharpness.fill_(sharpness)


def gates_of(network: nn.Module) -> dict[str, Gate]:
    """Return the network's gates by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Gate)}


def gated_layers(adapters: Adapters) -> list[GatedLayer]:
    """Return the linear maps that gates stand on, in order; an MLP's last one has no gate on its outputs."""
    if is_peft(adapters.network):
        layers = []
        for name in lora_layers(adapters.network):
            gate = f"{name}.lora_B.default.gate"
            layers += [
                GatedLayer(f"{name}.lora_A.default.weight", None, gate, None),
                GatedLayer(f"{name}.lora_B.default.weight", None, None, gate),
            ]
        return layers
    names = {module: name for name, module in adapters.network.named_modules()}
    chain = linear_chain(adapters.network)
    paths = [f"{names[linear]}." if names[linear] else "" for linear in chain]
    gates = [None, *(f"{path}gate" for path in paths[1:]), None]
    return [
        GatedLayer(f"{path}weight", f"{path}bias" if linear.bias is not None else None, gates[i + 1], gates[i])
        for i, (path, linear) in enumerate(zip(paths, chain, strict=True))
    ]


def _through_gate(linear: nn.Linear, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (inputs[0] * linear.gate.values().to(inputs[0].dtype),)

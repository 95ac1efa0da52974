"""LoRAs with random weights, and models whose own LoRA is moved away from nothing."""

from collections.abc import Sequence

import torch
from peft import LoraConfig

from everlearn.experts.base import Base
from everlearn.experts.lora import PREFIX, Lora
from everlearn.models.load import Model

ATTENTION = ("q_proj", "v_proj")
INPUTS = torch.tensor([[1, 70, 71, 72, 80], [1, 90, 40, 41, 42], [1, 33, 99, 12, 13]])


def make_lora(base: Base, seed: int, rank: int = 2, targets: Sequence[str] = ATTENTION, **options: object) -> Lora:
    """Return a LoRA on these layers of a base, large enough to change what it answers."""
    generator = torch.Generator().manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), **options)
    tensors = {}
    for name, (outputs, inputs) in base.layers.items():
        if name.rpartition(".")[2] in targets:
            tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator)
            tensors[f"{PREFIX}{name}.lora_B.weight"] = 0.3 * torch.randn(outputs, rank, generator=generator)
    return Lora(config, tensors)


def shake(model: Model, seed: int) -> None:
    """Move what is trained, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.adapters.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def logits(model: Model, **options: object) -> torch.Tensor:
    """Return what a language model answers to INPUTS, [rows, positions, tokens]."""
    with model.evaluating():
        return model.network(input_ids=INPUTS, **options).logits

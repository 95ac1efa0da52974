"""The base model that a library's experts belong to: how to know it again, and which layers a LoRA can stand on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from everlearn.errors import ModelError, describe
from everlearn.models.adapters import Adapters, language_model, linear_names
from everlearn.models.load import Model
from everlearn.models.origin import COMMIT, differing_files, fingerprint_of, place_of

WEIGHTS = "weights"  # key of the fingerprint of a network whose files are not known


@dataclass(frozen=True)
class Base:
    """A frozen model.

    Attributes:
        name: as it was loaded.
        fingerprint: SHA-256 of each of its files; of a hub model its commit; else of its weights in memory.
        layers: {name: (outputs, inputs)} of its linear layers, the heads aside.
        kind: of network: causal, classify, tag or tensor.
        head: name of the layer whose place a classifier's head takes; None where there is none.
    """

    name: str
    fingerprint: dict[str, str]
    layers: dict[str, tuple[int, int]]
    kind: str = "causal"
    head: str | None = None

    @classmethod
    def of(cls, model: Model) -> "Base":
        """Return the base of a loaded model, whatever LoRAs stand on it.

        Raises:
            ModelError: if its files can't be read; if they lack weights, a pooler's say, which were drawn anew and are
                trained; or if all weights are trained.
        Cost: reads its files once, or its weights.
        """
        adapters = model.adapters
        if adapters.fresh:
            way_out = "Save it once with these weights, or use another model"
            what = "its files lack weights that experts would share and each change"
            raise ModelError(describe(f"base model {model.name!r}", what, list(adapters.fresh), way_out))
        return cls(model.name, _fingerprint(model), linear_layers(adapters), model.kind, head_name(adapters))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Base":
        """Return what `vars` of a base became in JSON."""
        layers = {name: tuple(shape) for name, shape in value["layers"].items()}
        return cls(**{**value, "layers": layers})

    def check_same(self, other: "Base | Mapping[str, str]", where: str) -> None:
        """Raise ModelError where the other, or the model of that fingerprint, isn't this base."""
        found = other.fingerprint if isinstance(other, Base) else other
        differing = differing_files(self.fingerprint, found)
        if differing:
            what = f"belongs to another base model than {self.name!r}"
            way_out = "Use it with the model that it was made on"
            raise ModelError(describe(where, what, ", ".join(differing[:4]), way_out))


def linear_layers(adapters: Adapters) -> dict[str, tuple[int, int]]:
    """Return {name without peft: (outputs, inputs)} of the linear layers that a LoRA can stand on: all but the output.

    Raises:
        ModelError: if there is none.
    """
    network, head = language_model(adapters.network), adapters.head
    last_parts, heads = linear_names(network, head), set(head.modules()) if head is not None else set()
    found = {}
    for name, module in network.named_modules():
        plain = name.removesuffix(".base_layer")
        if plain.rpartition(".")[2] not in last_parts or module in heads or ".lora_" in name:
            continue
        if isinstance(module, Conv1D):
            found[plain] = (module.weight.shape[1], module.weight.shape[0])
        elif isinstance(module, nn.Linear):
            found[plain] = (module.out_features, module.in_features)
    return found


def head_name(adapters: Adapters) -> str | None:
    """Return the name without peft of the layer that the heads stand for, None where there are none."""
    modules = language_model(adapters.network).named_modules() if adapters.head is not None else ()
    return next((name for name, module in modules if module is adapters.head), None)


def _fingerprint(model: Model) -> dict[str, str]:
    place = place_of(model.name)
    found = fingerprint_of(place) if place is not None else {}
    network = language_model(model.network)
    if not found and isinstance(network, PreTrainedModel):
        commit = vars(network.config).get("_commit_hash")
        found = {COMMIT: commit} if commit is not None else {}
    return found or {WEIGHTS: _sha256_of_weights(model)}


def _sha256_of_weights(model: Model) -> str:
    """Return the SHA-256 of all that isn't trained: names, shapes and bytes."""
    trained, digest = model.adapters.trainable().keys(), hashlib.sha256()
    tensors = {n.replace(".base_layer.", "."): p for n, p in model.network.named_parameters() if n not in trained}
    tensors = {name.removeprefix("base_model.model."): p for name, p in tensors.items() if ".lora_" not in name}
    if not tensors:
        way_out = "Train a LoRA: model.adapter.name: lora"
        raise ModelError(describe("experts", "no part of the model stays as it is", model.name, way_out))
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

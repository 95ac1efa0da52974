"""A LoRA outside any model, as a peft folder holds it: read, checked against its base, written."""

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from everlearn.errors import ModelError, StateError, describe
from everlearn.experts.base import Base
from everlearn.models.lora import lora_layers, matrix_of
from everlearn.state import fsync_file, read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of the names of a model that peft wraps
# what a configuration may say; `init_lora_weights` and its like only matter before training
_MEANT = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "task_type", "base_model_name_or_path", "revision",
)  # fmt: skip
_WITHOUT_EFFECT = (
    "peft_type", "peft_version", "auto_mapping", "inference_mode", "init_lora_weights", "loftq_config", "eva_config",
    "lora_ga_config", "corda_config", "megatron_core", "qalora_group_size", "ensure_weight_tying", "runtime_config",
)  # fmt: skip
_PLAIN_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")  # others change the base's weights as well
_NOTHING = (None, False, "none", [], {})


@dataclass(frozen=True)
class LoraLayerWeights:
    """What is added to a layer's outputs for inputs x: scaling * B A x. A [rank, inputs], B [outputs, rank]."""

    down: torch.Tensor
    up: torch.Tensor
    scaling: float


@dataclass(frozen=True)
class Lora:
    """A LoRA on linear layers.

    Attributes:
        tensors: named as in `adapter_model.safetensors`: base_model.model.LAYER.lora_A.weight.
    """

    config: LoraConfig
    tensors: dict[str, torch.Tensor]

    @classmethod
    def read(cls, folder: Path) -> "Lora":
        """Return what is in a peft folder. `check` tells whether it fits a base.

        Raises:
            ModelError: if it isn't a LoRA, or has parts that a library can't keep. StateError: if a file can't be read.
        """
        config = _config(read_json(folder / CONFIG, "Name a folder that peft's save_pretrained wrote"), folder)
        if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
            way_out = "Save it as safetensors: save_pretrained(folder, safe_serialization=True)"
            raise ModelError(describe(str(folder), "the weights are a pickle", "adapter_model.bin", way_out))
        try:
            return cls(config, load_file(folder / WEIGHTS))
        except (OSError, SafetensorError) as error:
            way_out = "Copy the folder anew"
            raise StateError(describe(str(folder / WEIGHTS), f"can't be read ({error})", WEIGHTS, way_out)) from error

    @classmethod
    def of(cls, network: nn.Module, name: str) -> "Lora":
        """Return a copy, on the CPU, of an adapter of a network.

        Raises:
            ModelError: if it has parts that a library can't keep, or stands on layers that aren't linear.
        """
        config = _config(_as_json(network.peft_config[name]), f"adapter {name!r}")
        tensors = {}
        for layer_name, layer in lora_layers(network).items():
            if name in layer.lora_A:
                tensors[f"{layer_name}.lora_A.weight"] = _copy(matrix_of(layer.lora_A[name]))
                tensors[f"{layer_name}.lora_B.weight"] = _copy(matrix_of(layer.lora_B[name]))
        return cls(config, tensors)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that it stands on, sorted."""
        ending = ".lora_A.weight"
        names = (name for name in self.tensors if name.endswith(ending))
        return sorted(name.removeprefix(PREFIX).removesuffix(ending) for name in names)

    @property
    def rank(self) -> int:
        """The largest rank of a layer."""
        return max(self.tensors[f"{PREFIX}{name}.lora_A.weight"].shape[0] for name in self.layers)

    @property
    def targets(self) -> list[str]:
        """Last parts of the layers' names, sorted: q_proj, v_proj."""
        return sorted({name.rpartition(".")[2] for name in self.layers})

    def layer(self, name: str) -> LoraLayerWeights:
        """Return the weights of one of `layers`."""
        down, up = (self.tensors[f"{PREFIX}{name}.lora_{side}.weight"] for side in "AB")
        return LoraLayerWeights(down, up, self._scaling(name))

    def check(self, base: Base, where: str) -> None:
        """Do nothing if it has all the layers of the base that its configuration names, in their shapes, and no others.

        peft itself gives a layer that is missing fresh weights, and says nothing.

        Raises:
            ModelError: if it doesn't fit, with the layers.
        """
        wanted = {name for name in base.layers if check_target_module_exists(self.config, name)}
        keys = {f"{PREFIX}{name}.lora_{side}.weight" for name in wanted for side in "AB"}
        missing, unknown = sorted(keys - self.tensors.keys()), sorted(self.tensors.keys() - keys)
        if missing:
            way_out = "Copy the folder anew; or name in target_modules only the layers that it has"
            raise ModelError(
                describe(where, f"{len(missing)} of {len(keys)} weights are missing", missing[:2], way_out)
            )
        if unknown:
            way_out = f"Use it with its own base model, or have a LoRA on linear layers of {base.name!r} only"
            raise ModelError(describe(where, "has weights that the base has no place for", unknown[:2], way_out))
        if not wanted:
            way_out = "Name a LoRA that was trained on this base"
            raise ModelError(describe(where, "stands on no layer of the base", _targets(self.config), way_out))
        for name in sorted(wanted):
            self._check_layer(name, base.layers[name], where)

    def write(self, folder: Path) -> None:
        """Write the two files of a peft folder; they are on the disk when this returns."""
        config = _as_json(self.config) | {"inference_mode": True}
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        tensors = {name: self.tensors[name].contiguous() for name in sorted(self.tensors)}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        for name in (CONFIG, WEIGHTS):
            fsync_file(folder / name)

    def _check_layer(self, name: str, shape: tuple[int, int], where: str) -> None:
        weights, rank = self.layer(name), self._rank(name)
        found = (tuple(weights.down.shape), tuple(weights.up.shape))
        if found != ((rank, shape[1]), (shape[0], rank)):
            wanted = f"A and B of layer {name!r} should be {(rank, shape[1])} and {(shape[0], rank)}"
            raise ModelError(describe(where, wanted, found, "Use it with its own base model"))
        if not (weights.down.isfinite().all() and weights.up.isfinite().all()):
            raise ModelError(describe(where, "has weights that are not finite", name, "Train it anew"))

    def _rank(self, name: str) -> int:
        patterns = self.config.rank_pattern
        return patterns.get(get_pattern_key(patterns.keys(), name), self.config.r)

    def _scaling(self, name: str) -> float:
        patterns = self.config.alpha_pattern
        alpha = patterns.get(get_pattern_key(patterns.keys(), name), self.config.lora_alpha)
        return alpha / math.sqrt(self._rank(name)) if self.config.use_rslora else alpha / self._rank(name)


def lora_config(rank: int, alpha: float, layers: list[str], like: LoraConfig) -> LoraConfig:
    """Return the configuration of a plain LoRA on these layers, with the base of another."""
    return LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(layers), task_type=like.task_type,
        fan_in_fan_out=like.fan_in_fan_out, base_model_name_or_path=like.base_model_name_or_path,
        revision=like.revision,
    )  # fmt: skip


def _config(content: Any, where: str | Path) -> LoraConfig:
    """Return a configuration from its JSON.

    Raises:
        ModelError: if it isn't a LoRA's, or says more than which layers have which rank and scale.
    """
    if not isinstance(content, Mapping) or content.get("peft_type") != "LORA":
        got = content.get("peft_type") if isinstance(content, Mapping) else content
        raise ModelError(describe(str(where), "isn't a LoRA", got, "A library keeps LoRAs on linear layers"))
    beside = {key for key in content if key not in (*_MEANT, *_WITHOUT_EFFECT) and content[key] not in _NOTHING}
    if content.get("init_lora_weights") not in _PLAIN_BEGINNINGS:
        beside.add("init_lora_weights")
    if beside:
        got = {key: content[key] for key in sorted(beside)}
        raise ModelError(describe(str(where), "is more than a LoRA on linear layers", got, "Train it without these"))
    known = {field.name for field in fields(LoraConfig)}
    meant = {key: content[key] for key in _MEANT if key in known and content.get(key) is not None}
    targets = meant.get("target_modules")
    if not targets or targets == "all-linear":
        raise ModelError(describe(str(where), "doesn't say on which layers it stands", targets, "Name target_modules"))
    return LoraConfig(**copy.deepcopy(meant))


def _as_json(config: LoraConfig) -> dict[str, Any]:
    """Return a configuration as JSON, the same in every process: a set's order is not."""
    values = config.to_dict().items()
    return {key: sorted(value) if isinstance(value, set) else _name(value) for key, value in values}


def _name(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _targets(config: LoraConfig) -> Any:
    return config.target_modules if isinstance(config.target_modules, str) else sorted(config.target_modules)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()

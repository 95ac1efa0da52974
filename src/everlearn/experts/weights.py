"""The files of an expert's folder: a plain peft adapter, and beside it a classifier's heads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from everlearn.errors import StateError, describe
from everlearn.experts.lora import CONFIG, WEIGHTS, Lora
from everlearn.experts.record import Head
from everlearn.files import sha256_of
from everlearn.state import fsync_file

HEADS = "heads.safetensors"


def write_weights(folder: Path, lora: Lora, heads: Mapping[str, Head]) -> dict[str, list[Any]]:
    """Write a LoRA and heads, by task, into a folder. Return {file: [bytes, SHA-256]}; they are on the disk by then."""
    lora.write(folder)
    if heads:
        save_file(_tensors(heads), folder / HEADS)
        fsync_file(folder / HEADS)
    names = (CONFIG, WEIGHTS, *([HEADS] if heads else []))
    return {name: [(folder / name).stat().st_size, sha256_of(folder / name)] for name in names}


def read_heads(folder: Path, labels: Mapping[str, Sequence[str]]) -> dict[str, Head]:
    """Return the heads in a folder of the tasks with these labels.

    Raises:
        StateError: if they can't be read.
    """
    try:
        tensors = load_file(folder / HEADS) if labels else {}
        parts = {task: (tensors[f"{task}.weight"], tensors.get(f"{task}.bias")) for task in labels}
    except (OSError, KeyError, SafetensorError) as error:
        way_out = "Restore the folder from a copy"
        raise StateError(describe(str(folder / HEADS), f"can't be read ({error})", list(labels), way_out)) from error
    return {task: Head(weight, bias, tuple(labels[task])) for task, (weight, bias) in parts.items()}


def _tensors(heads: Mapping[str, Head]) -> dict[str, torch.Tensor]:
    parts = {f"{task}.{part}": vars(head)[part] for task, head in sorted(heads.items()) for part in ("weight", "bias")}
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in parts.items() if tensor is not None}

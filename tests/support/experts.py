"""LoRAs with random weights, and models whose own LoRA is moved away from nothing."""

import json
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import torch
from peft import LoraConfig

from everlearn.experts import Learned, Library, Merge
from everlearn.experts.base import Base
from everlearn.experts.lora import PREFIX, Lora
from everlearn.experts.signals.context import FEATURES, Context
from everlearn.experts.signals.passes import passes
from everlearn.models.load import Model
from everlearn.models.without import base_of
from everlearn.types import Task

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


def context_of(model: Model, task: Task) -> dict[str, float]:
    """Return the context signal of a task's training rows, by name."""
    context = Context()
    with base_of(model):
        for one in passes(model, task, list(task.train), 64):
            context.add(one)
    return dict(zip(FEATURES, context.signal().tolist(), strict=True))


def change(library: Library, step: int) -> None:
    """Change a library in a way that depends on nothing but the step and what is there."""
    numbers = [expert.number for expert in library.experts]
    prototype = torch.randn(4, generator=torch.Generator().manual_seed(step))
    told = Learned(task=f"task {step}", n_rows=step, prototype=prototype)
    match step % 6:
        case 2:
            library.adapt(numbers[0], make_lora(library.base, step), told)
        case 3:
            with library.changing():
                made = library.merge(numbers[-2:], f"merged at {step}", Merge("cat"))
                library.retire(numbers[-1], f"merged into {made.number}")
                library.used(made.number, {"step": step})
        case 4:
            library.keep_router({"w": prototype, "step": step})
        case 5:
            library.prune(numbers[-1])
        case _:
            library.add(make_lora(library.base, step), f"made at {step}", learned=[told])


def state_of(library: Library) -> dict:
    """Return all that a library knows and holds, but for the time of the day."""
    snapshot = json.loads(json.dumps(library.snapshot()))
    experts = [{k: v for k, v in expert.items() if k != "time"} for expert in snapshot.pop("experts")]
    profiles = {e.number: {t: v.tolist() for t, v in library.profile(e.number).items()} for e in library.experts}
    router = library.router()
    return snapshot | {
        "experts": experts, "profiles": profiles, "router_step": (router or {}).get("step"),
    }  # fmt: skip


def keep_changing(folder: Path, step: int, pipe: Connection) -> None:
    """Change a library step by step, and tell of each that is done. To be killed."""
    torch.set_num_threads(1)
    library = Library.open(folder)
    with mock.patch("os.fsync"):  # a kill takes nothing from the system's own memory
        while True:
            change(library, step)
            pipe.send(step)
            step += 1

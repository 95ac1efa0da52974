"""What a pretraining run keeps on disk: weights, optimizer state and its position."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from everlearn.errors import StateError, describe
from everlearn.models.pocket.recipe import PocketRecipe
from everlearn.models.pocket.training import Position
from everlearn.state import checkpoints, load_state, save_checkpoint


def save_run(
    folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], recipe: PocketRecipe, position: Position
) -> None:
    """Add a checkpoint to `folder`; it appears whole or not at all, and the two newest are kept."""
    tensors = {f"model/{name}": p for name, p in model.named_parameters()}
    for k, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{k}/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    save_checkpoint(folder, copies, {"recipe": asdict(recipe), "position": asdict(position)})


def load_run(
    folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], recipe: PocketRecipe
) -> Position | None:
    """Restore weights and optimizers from the newest checkpoint and return its position; None if there is none.

    Raises:
        StateError: if the checkpoint is damaged or belongs to another recipe.
    """
    found = checkpoints(folder)
    if not found:
        return None
    tensors, values = load_state(found[-1])
    # total_tokens may change: a run can be shortened or lengthened, and its schedule follows
    if {**values["recipe"], "total_tokens": recipe.total_tokens} != json.loads(json.dumps(asdict(recipe))):
        raise StateError(describe(str(folder), "holds a run of another recipe", values["recipe"], "Name another --out"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model/{name}"])
    for k, optimizer in enumerate(optimizers):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": _state_of(tensors, k), "param_groups": groups})
    return Position(**values["position"])


def _state_of(tensors: dict[str, Tensor], k: int) -> dict[int, dict[str, Tensor]]:
    """Return what optimizer number `k` keeps for each of its parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        head, *rest = key.split("/")
        if head == "optimizer" and rest[0] == str(k):
            state.setdefault(int(rest[1]), {})[rest[2]] = tensor
    return state

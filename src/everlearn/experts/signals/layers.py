"""Which layers a gradient is sketched in: the default, names that are checked, and how well each tells tasks apart."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from everlearn.errors import ConfigError, describe, nearest
from everlearn.experts.base import linear_layers
from everlearn.experts.signals.gradient import GradientSketch, row_sketches
from everlearn.experts.signals.passes import chosen, passes
from everlearn.models.load import Model
from everlearn.models.without import base_of
from everlearn.types import Task

SIDES = (32, 32)  # of the survey's sketches, which are of all layers at once
N_PARTS = 4  # that the rows of a task are dealt into, so that it can be met again
N_PROPOSED = 8

Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Surveyed:
    """A layer as a survey found it.

    Attributes:
        norm: of a row's gradient, root mean square over rows, estimated from sketches; 0 where no loss depends on it.
        auc: how well its sketches tell parts of one task from parts of others: the chance that a pair of the same task
            is more alike than a pair of two, 0.5 by chance; None of one task.
        gap: by how many standard deviations pairs of the same task are more alike; None of one task.
    """

    norm: float
    auc: float | None
    gap: float | None


def depth_of(name: str) -> int | None:
    """Return the number of the block that a layer is in, None where it is in none."""
    numbers = re.findall(r"\.(\d+)\.", name)
    return int(numbers[0]) if numbers else None


def upper_third(layers: Shapes) -> list[str]:
    """Return the layers in the upper third of a network's blocks; all, where it has no blocks."""
    depths = {name: depth_of(name) for name in layers}
    known = [depth for depth in depths.values() if depth is not None]
    if not known:
        return list(layers)
    lowest = (max(known) + 1) - -(-(max(known) + 1) // 3)
    return [name for name, depth in depths.items() if depth is not None and depth >= lowest]


def default_layers(layers: Shapes) -> list[str]:
    """Return the layers that are sketched where none is named: those of the lowest block of the upper third."""
    upper = upper_third(layers)
    lowest = depth_of(upper[0])
    return [name for name in upper if depth_of(name) == lowest]


def checked_layers(names: Iterable[str], layers: Shapes) -> dict[str, tuple[int, int]]:
    """Return {name: (outputs, inputs)} of the named layers.

    Raises:
        ConfigError: if there is no such layer, with the nearest name; or none is named.
    """
    names = list(dict.fromkeys(names))
    for name in names or [""]:
        if name not in layers:
            way_out = f"{nearest(name, layers)}everlearn experts layers lists them"
            raise ConfigError(describe("grad_sketch_layers", "the model has no such linear layer", name, way_out))
    return {name: layers[name] for name in names}


def survey(
    model: Model, tasks: Iterable[Task], k: int = 16, max_tokens: int = 128, seed: int = 0
) -> dict[str, Surveyed]:
    """Return what the gradients of tasks' training rows are like in each linear layer of the base.

    Each task's rows are dealt into parts of k, N_PARTS at most, or of fewer where there are too few rows.

    Cost: a forward and a backward pass of the whole network over up to N_PARTS * k rows of each task.
    """
    layers = linear_layers(model.adapters)
    sketch = GradientSketch(model.network, layers, len(layers), seed, SIDES)
    squares = {name: 0.0 for name in layers}
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    owners, n_rows = [], 0
    for number, task in enumerate(tasks):
        rows = chosen(task, task.train, N_PARTS * k, seed)
        n_parts = min(N_PARTS, max(1, len(rows) // 2))
        for part in range(n_parts):
            mine = rows[len(rows) * part // n_parts : len(rows) * (part + 1) // n_parts]
            with base_of(model):
                found = row_sketches(sketch, model.network, passes(model, task, mine, max_tokens))
            for name in layers:
                flat = found[name].flatten(1).cpu() if name in found else torch.zeros(1, SIDES[0] * SIDES[1])
                squares[name] += flat.square().sum().item()
                parts[name].append(F.normalize(flat, dim=1).mean(0))
            owners.append(number)
            n_rows += len(mine)
    alike = {name: apart(torch.stack(vectors), owners) for name, vectors in parts.items()}
    return {name: Surveyed((squares[name] / max(n_rows, 1)) ** 0.5, *alike[name]) for name in layers}


def proposed(layers: Shapes, found: Mapping[str, Surveyed]) -> list[str]:
    """Return the layers to sketch: those of the upper third that tell tasks apart best; the default, of one task."""
    upper = [name for name in upper_third(layers) if name in found and found[name].auc is not None]
    if not upper:
        return default_layers(layers)
    best = sorted(upper, key=lambda name: (found[name].auc, found[name].gap), reverse=True)[:N_PROPOSED]
    return [name for name in layers if name in best]


def apart(vectors: torch.Tensor, owners: Sequence[int]) -> tuple[float | None, float | None]:
    """Return the AUC and the gap of the cosines between vectors [n, size], centred, of the same and of other owners."""
    unit = F.normalize(vectors - vectors.mean(0), dim=1)
    pairs = torch.combinations(torch.arange(len(owners)), 2)
    cosines = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(1)
    same = torch.tensor([owners[i] == owners[j] for i, j in pairs.tolist()], dtype=torch.bool)
    if same.all() or not same.any():
        return None, None
    spread = ((cosines[same].var(correction=0) + cosines[~same].var(correction=0)) / 2).sqrt().clamp(min=1e-6)
    gap = (cosines[same].mean() - cosines[~same].mean()) / spread
    return float(roc_auc_score(same.numpy(), cosines.numpy())), float(gap)

"""Plain modules built by name: an MLP sized by the data, or any function that returns a module."""

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from everlearn.errors import ConfigError, check_number, describe, nearest
from everlearn.seeds import seeded
from everlearn.types import Task, TensorRows


def is_plain(name: str) -> bool:
    """Tell whether a model's name stands for a plain module."""
    return name == "mlp" or (":" in name and not Path(name).expanduser().exists())


def build_plain(name: str, options: dict[str, Any], tasks: Sequence[Task], head: str, seed: int) -> nn.Module:
    """Return `mlp`, or what `package.module:function` builds from `options`; weights are seeded.

    The function is called with `n_inputs` and `n_outputs` too, where it has parameters of these names.
    """
    if name != "mlp" and ":" not in name:
        way_out = f"{nearest(name, ['mlp'])}Write mlp, or package.module:function"
        raise ConfigError(describe("model.name", "is no plain module", name, way_out))
    build = mlp if name == "mlp" else _import(name)
    if not isinstance(tasks[0].train, TensorRows):
        way_out = "Give the module itself: model=..."
        raise ConfigError(describe("model.name", "inputs that differ in shape can't size a module", name, way_out))
    sizes = {"n_inputs": tasks[0].train[:1].x[0].numel(), "n_outputs": _n_outputs(tasks)}
    parameters = inspect.signature(build).parameters
    arguments = {**{key: value for key, value in sizes.items() if key in parameters}, **options}
    unknown = sorted(set(arguments) - set(parameters))
    if unknown:
        way_out = f"{nearest(unknown[0], parameters)}Options: {', '.join(parameters)}"
        raise ConfigError(describe("model.options", f"{name} has no such option", unknown[0], way_out))
    with seeded(seed):
        return build(**arguments)


def mlp(n_inputs: int, n_outputs: int, hidden: Sequence[int] = (256, 256), dropout: float = 0.0) -> nn.Module:
    """Return a ReLU network: inputs [batch, ...] are flattened, `hidden` gives the width of each layer."""
    for i, width in enumerate(hidden):
        check_number(f"model.options.hidden[{i}]", width, low=1)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, width in zip([n_inputs, *hidden], hidden, strict=False):
        layers += [nn.Linear(before, width), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else n_inputs, n_outputs))


def _n_outputs(tasks: Sequence[Task]) -> int:
    """One output per label name over all tasks; without label names, per class number; one per real number."""
    labels = {label for task in tasks for label in task.labels}
    if labels:
        return len(labels)
    if tasks[0].train.y.is_floating_point():
        return tasks[0].train.y[0].numel()
    return int(max(task.train.y.max() for task in tasks)) + 1


def _import(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        return vars(importlib.import_module(module_name))[attribute]
    except (ImportError, KeyError) as error:
        way_out = "Write package.module:function of something importable"
        raise ConfigError(describe("model.name", f"can't be imported ({error})", name, way_out)) from error

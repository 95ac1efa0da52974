"""Which weights move in the inner loop, and whether a model can be meta-learned at all."""

import re
from collections.abc import Sequence

from torch import nn

from everlearn.errors import ConfigError, ModelError, describe
from everlearn.learners.meta.config import MetaConfig
from everlearn.models.adapters import is_peft, last_linear
from everlearn.models.load import Model

KINDS = ("causal", "tensor")
GATE = "gate"  # ANML: modules of this name learn in the outer loop only


def check_model(model: Model) -> None:
    """Raise ModelError if what a task needs can't be learned from other tasks."""
    if model.kind not in KINDS and model.adapters.head_mode == "task":
        way_out = "Write model.head: shared, so that tasks share the weights of the labels that they share"
        what = "a new task brings a new head, which can't be meta-learned"
        raise ModelError(describe("model", what, model.kind, way_out))
    for name, module in model.network.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and module.track_running_stats:
            way_out = "Use torch.func.replace_all_batch_norm_modules_, or another norm"
            raise ModelError(describe(f"model, {name}", "keeps statistics over tasks", type(module).__name__, way_out))


def adapted_names(model: Model, config: MetaConfig) -> list[str] | None:
    """Return the names of the weights that move in the inner loop, or None for all.

    Raises:
        ConfigError: if there is no such part.
    """
    names = list(model.adapters.trainable())
    if not isinstance(config.adapted, str):
        chosen = [name for name in names if any(part in name for part in config.adapted)]
    elif config.algorithm == "oml":
        chosen = _prediction_part(model, names)
    elif config.algorithm == "anml":
        chosen = [name for name in names if GATE not in name.split(".")]
        chosen = [] if len(chosen) == len(names) else chosen
    else:
        return None
    if not chosen:
        way_out = f"Name parts of parameter names in learner.adapted; ANML needs a module named {GATE}"
        raise ConfigError(describe("learner.adapted", "names no part of the weights", names[:4], way_out))
    return chosen


def _prediction_part(model: Model, names: Sequence[str]) -> list[str]:
    """Return the weights of OML's prediction network: the last linear map, or the last block's adapters."""
    if not is_peft(model.network):
        last = last_linear(model.network)
        held = set() if last is None else {id(p) for p in last.parameters()}
        chosen = [name for name, p in model.adapters.trainable().items() if id(p) in held]
    else:
        blocks = {name: int(found.group(1)) for name in names if (found := re.search(r"\.(\d+)\.", name))}
        chosen = [name for name, block in blocks.items() if block == max(blocks.values())]
    return chosen if len(chosen) < len(names) else []

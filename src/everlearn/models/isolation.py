"""What must stand still so that earlier tasks keep their answers bit for bit, whatever the optimizer does."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from everlearn.errors import ModelError, describe
from everlearn.models.adapters import Adapters, is_peft, last_linear
from everlearn.registry import register
from everlearn.types import Task

_WITH_STATISTICS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class Held:
    """Entries of weights that stay as they are. A zero gradient is not enough: weight decay and momentum move them.

    Attributes:
        masks: {parameter name: bool tensor, true where held}; values: what the parameter held when this was made.
    """

    masks: dict[str, torch.Tensor]
    values: dict[str, torch.Tensor]

    @classmethod
    def of(cls, parameters: Mapping[str, nn.Parameter], masks: Mapping[str, torch.Tensor]) -> "Held":
        """Hold the entries where a mask is true at their present values."""
        held = {name: mask.to(parameters[name].device) for name, mask in masks.items() if mask.any()}
        return cls(held, {name: parameters[name].detach().clone() for name in held})

    def drop_gradients(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Zero the gradients of held entries, so that clipping doesn't count them."""
        for name, mask in self.masks.items():
            if parameters[name].grad is not None:
                parameters[name].grad.masked_fill_(mask, 0.0)

    def put_back(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Undo what a step did to held entries."""
        for name, mask in self.masks.items():
            weights = parameters[name].data
            torch.where(mask, self.values[name], weights, out=weights)


def freeze_shared(adapters: Adapters, task: Task, kept: Collection[str]) -> None:
    """Let only the parameters named in `kept` and the task's own head learn; hold running statistics of norms."""
    learning, trainable = {*kept, *own_head(adapters, task)}, adapters.trainable()
    frozen = [name for name in trainable if name not in learning]
    opened = sorted(name for name in learning if name not in trainable)
    if frozen:
        adapters.do("freeze", parameters=frozen)
    if opened:
        adapters.do("freeze", parameters=opened, frozen=False)
    has_statistics = any(isinstance(module, _WITH_STATISTICS) for module in adapters.network.modules())
    if has_statistics and not any(operation == "hold_statistics" for operation, _ in adapters.log):
        adapters.do("hold_statistics")


@register("operation", "hold_statistics")
def hold_statistics(adapters: Adapters) -> None:
    """Let norms with running statistics use them in training too, and change them no more."""
    for module in adapters.network.modules():
        if isinstance(module, _WITH_STATISTICS):
            module.register_forward_pre_hook(_evaluate)


def own_head(adapters: Adapters, task: Task) -> list[str]:
    """Return the names of the parameters of the task's own head; none where it has no head to itself."""
    if adapters.head is None or task.name not in adapters.task_blocks:
        return []
    own = {id(p) for p in adapters.head.blocks[adapters.task_blocks[task.name]].parameters()}
    return [name for name, p in adapters.network.named_parameters() if id(p) in own]


def own_rows(adapters: Adapters, task: Task, learned: Iterable[str]) -> torch.Tensor:
    """Return which outputs of a plain module are for classes that none of the tasks `learned` names [n_outputs]."""
    taken = {label for name in learned if name != task.name for label in adapters.task_labels.get(name, ())}
    labels = adapters.task_labels.get(task.name, ())
    rows = torch.zeros(output_layer(adapters).out_features, dtype=torch.bool)
    rows[[adapters.columns[label] for label in labels if label not in taken]] = True
    return rows


def has_own_rows(adapters: Adapters, task: Task, tasks: Iterable[Task]) -> bool:
    """Tell whether a plain module answers by outputs that are the task's alone, as far as its classes' names tell."""
    others = {label for other in tasks if other.name != task.name for label in other.labels}
    return adapters.head is None and not is_peft(adapters.network) and bool(set(task.labels) - others)


def output_layer(adapters: Adapters) -> nn.Linear:
    """Return the last linear map of a plain module.

    Raises:
        ModelError: if there is none.
    """
    found = last_linear(adapters.network)
    if found is None:
        way_out = "Use a module whose last layer is nn.Linear"
        raise ModelError(describe("model", "has no linear output layer", type(adapters.network).__name__, way_out))
    return found


def linear_chain(network: nn.Module) -> list[nn.Linear]:
    """Return the linear maps of an MLP in order: an nn.Sequential of them with layers without parameters between.

    Raises:
        ModelError: if the network is no such chain.
    """
    layers = list(network) if isinstance(network, nn.Sequential) else [network]
    linear = [layer for layer in layers if type(layer) is nn.Linear]
    between = [layer for layer in layers if type(layer) is not nn.Linear]
    fits = all(a.out_features == b.in_features for a, b in pairwise(linear))
    if not linear or not fits or any(True for layer in between for _ in layer.parameters()):
        way_out = "Use model.name: mlp, or an nn.Sequential of nn.Linear and activations"
        raise ModelError(describe("model", "is no chain of linear maps", type(network).__name__, way_out))
    return linear


def _evaluate(module: nn.Module, inputs: tuple) -> None:
    module.eval()

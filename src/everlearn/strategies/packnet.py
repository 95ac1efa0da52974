"""PackNet: each task gets weights of its own, chosen by pruning; what earlier tasks own never changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from everlearn.errors import ModelError, check_number, describe
from everlearn.models.adapters import Adapters, is_peft
from everlearn.models.isolation import Held, freeze_shared, has_own_rows, output_layer, own_rows
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.strategy import Strategy, learned
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

MAX_LEARNED = 255  # an owner is one byte


def give_largest(weights: torch.Tensor, owners: torch.Tensor, number: int, prune_fraction: float) -> torch.Tensor:
    """Return the owners after the largest free weights went to task `number`; the share `prune_fraction` stays free.

    Args:
        weights, owners: of one shape; an owner is 0 where the weight is free.
    """
    free = (owners == 0).flatten().nonzero().squeeze(1)
    order = weights.flatten()[free].abs().sort(descending=True, stable=True).indices
    given = owners.flatten().clone()
    given[free[order[: len(free) - round(prune_fraction * len(free))]]] = number
    return given.view_as(owners)


def capacity(owners: dict[str, torch.Tensor], learned_tasks: Sequence[str]) -> dict[str, Any]:
    """Return {of, total, shares: {task: share of the weights that it owns}, free: share that no task owns}."""
    n = len(learned_tasks) + 1
    counts = sum((torch.bincount(o.flatten().cpu(), minlength=n) for o in owners.values()), torch.zeros(n)).tolist()
    total = max(1.0, sum(counts))
    shares = dict.fromkeys(learned_tasks, 0.0)
    for name, count in zip(learned_tasks, counts[1:], strict=True):
        shares[name] += count / total
    return {"of": "weights", "total": int(sum(counts)), "shares": shares, "free": counts[0] / total}


@register("strategy", "packnet")
@dataclass
class PackNet(Strategy):
    """Train the free weights, keep the largest of each matrix, set the rest to 0, retrain those kept and freeze them.

    A task answers with the weights of its own and of the tasks before it; all others count as 0. Shared are weight
    matrices: of the layers, or of the LoRA. Biases, norms and embeddings learn in the first task alone, a head in its
    task. What an earlier task answers stays the same, bit for bit.

    Args:
        prune_fraction: share of the free weights of each matrix that stays free for later tasks.
        retrain_share: share of a task's steps, the last ones, in which the kept weights are retrained.

    Cost: one byte a weight is kept, and one more copy of the weights while training; a pass over them each step.

    Source: Mallya & Lazebnik 2018, arXiv 1711.05769, section 3. Departs: retraining takes the last steps of the task,
    with the optimizer's state and schedule going on, in place of a second run; where training stops before that,
    there is none. Every task is pruned, for none is known to be the last. LoRA matrices are our addition.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    prune_fraction: float = 0.75
    retrain_share: float = 0.3

    owners_: dict = learned(dict)  # parameter name -> uint8 tensor: 0 free, k of the k-th task learned
    learned_: list = learned(list)  # names of tasks, in order; number k is the k-th
    pruned_: bool = learned(bool)  # whether the task in training has chosen its weights

    plans_steps: ClassVar[bool] = True
    isolates: ClassVar[bool] = True
    unsuited: ClassVar[dict[str, str]] = {
        "shared_head": "later tasks add classes to the head that all tasks answer by",
        "prompt": NO_LAYERS,
    }
    conflicts: ClassVar[dict[str, str]] = {
        "gdumb": "it starts each task from the first weights, those of earlier tasks among them",
        "inclora": "it lays LoRAs together whose weights belong to tasks",
        "osf": "it changes steps once they are taken, and weights of earlier tasks with them",
    }

    def __post_init__(self) -> None:
        check_number("packnet.prune_fraction", self.prune_fraction, above=0, high=0.999)
        check_number("packnet.retrain_share", self.retrain_share, low=0, high=0.9)
        self._held: Held | None = None

    def adapt_model(self, run: "Run", task: Task) -> None:
        if len(self.learned_) >= MAX_LEARNED:
            way_out = "Learn later tasks in a new run"
            raise ModelError(describe("packnet", f"tells {MAX_LEARNED} tasks apart, no more", task.name, way_out))
        adapters = run.model.adapters
        if not self.owners_:
            by_class = has_own_rows(adapters, task, run.tasks.values())
            matrices = _shared_matrices(adapters, _output_names(adapters) if by_class else ())
            self.owners_ = {name: torch.zeros_like(p, dtype=torch.uint8) for name, p in matrices.items()}
        else:
            freeze_shared(adapters, task, kept={*self.owners_, *self._by_class(adapters)})
        self.pruned_, self._held = False, None

    def edit_grads(self, step: Step) -> None:
        if self._held is None:
            self._held = self._hold(step)
        self._held.drop_gradients(step.params)

    def after_step(self, step: Step) -> None:
        self._held.put_back(step.params)
        if not self.pruned_ and step.index + 1 >= step.n_steps - int(self.retrain_share * step.n_steps):
            self._prune(step.run)

    def end_task(self, run: "Run", task: Task) -> None:
        if not self.pruned_:
            self._prune(run)
        self.learned_.append(task.name)
        self.pruned_, self._held = False, None

    def before_eval(self, run: "Run", task: Task) -> None:
        if task.name == run.current or task.name not in self.learned_:
            return  # the weights as they are
        number = len(self.learned_) - self.learned_[::-1].index(task.name)
        weights = self._weights(run)
        counting = {
            name: torch.where((owners > 0) & (owners <= number), weights[name].detach(), 0.0)
            for name, owners in self.owners_.items()
        }
        run.until_scored.enter_context(run.model.adapters.using(counting))

    def facts(self) -> dict[str, Any]:
        return capacity(self.owners_, self.learned_)

    def _hold(self, step: Step) -> Held:
        """Hold all but the free weights; after pruning, all but the task's. Of outputs by class, all but its own."""
        self._weights(step.run)
        moving = len(self.learned_) + 1 if self.pruned_ else 0
        masks = {name: owners != moving for name, owners in self.owners_.items()}
        adapters = step.run.model.adapters
        for name in self._by_class(adapters):
            fixed = ~own_rows(adapters, step.task, self.learned_).to(step.params[name].device)
            masks[name] = fixed.view(-1, *[1] * (step.params[name].ndim - 1)).expand_as(step.params[name])
        return Held.of(step.params, masks)

    def _by_class(self, adapters: Adapters) -> list[str]:
        """Return the names of a plain module's outputs, where each belongs to a class and so to a task."""
        if adapters.head is not None or is_peft(adapters.network):
            return []
        names = _output_names(adapters)
        return [] if set(names) & set(self.owners_) else names

    def _prune(self, run: "Run") -> None:
        weights = self._weights(run)
        for name, owners in self.owners_.items():
            given = give_largest(weights[name].detach(), owners, len(self.learned_) + 1, self.prune_fraction)
            weights[name].data.masked_fill_(given == 0, 0.0)
            self.owners_[name] = given
        self.pruned_, self._held = True, None

    def _weights(self, run: "Run") -> dict[str, nn.Parameter]:
        """Return the model's weights, the owners moved to their device: restored state comes on the CPU."""
        weights = dict(run.model.network.named_parameters())
        self.owners_ = {name: owners.to(weights[name].device) for name, owners in self.owners_.items()}
        return weights


def _shared_matrices(adapters: Adapters, outputs: Sequence[str]) -> dict[str, nn.Parameter]:
    """Return the trained weight matrices but embeddings, heads and `outputs`.

    Raises:
        ModelError: if there are none.
    """
    embeddings = (module for module in adapters.network.modules() if isinstance(module, nn.Embedding))
    left_out = {id(p) for module in embeddings for p in module.parameters()}
    if adapters.head is not None:
        left_out |= {id(p) for p in adapters.head.parameters()}
    found = {
        name: p
        for name, p in adapters.trainable().items()
        if p.ndim > 1 and id(p) not in left_out and name not in outputs
    }
    if not found:
        way_out = "Use a model with hidden layers or LoRA"
        raise ModelError(describe("packnet", "there is no weight matrix for tasks to share", [], way_out))
    return found


def _output_names(adapters: Adapters) -> list[str]:
    own = {id(p) for p in output_layer(adapters).parameters()}
    return [name for name, p in adapters.network.named_parameters() if id(p) in own]

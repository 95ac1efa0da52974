"""Hard attention to the task: each task learns which units it uses; what earlier tasks use doesn't change."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from everlearn.errors import check_number
from everlearn.models.adapters import is_peft
from everlearn.models.gates import gated_layers, gates_of
from everlearn.models.isolation import Held, freeze_shared, own_rows
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.strategy import ADDS_LAYERS, Strategy, learned
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

LARGEST = 6.0  # |embedding| is clipped to it, as the authors do
EXPONENT = 50.0  # so is s * e before cosh


def sharpness(step: int, n_steps: int, cycles: int, sharpest: float) -> float:
    """Return s at a step: from 1/sharpest to sharpest in equal steps, `cycles` times over a task."""
    n = -(-n_steps // cycles)
    return 1 / sharpest + (sharpest - 1 / sharpest) * (step % n) / max(1, n - 1)


def compensation(embedding: torch.Tensor, s: float, sharpest: float) -> torch.Tensor:
    """Return what a gradient by an embedding is multiplied by, so that s doesn't matter to it:
    s_max (cosh(s e) + 1) / (s (cosh(e) + 1))."""
    return sharpest / s * (torch.cosh((s * embedding).clamp(-EXPONENT, EXPONENT)) + 1) / (torch.cosh(embedding) + 1)


@register("strategy", "hat")
@dataclass
class HAT(Strategy):
    """Gate units by a = sigmoid(s e) with learned e, s rising to `sharpest`; add strength * R, the share of units no
    earlier task has that this one asks for; freeze all weights between units that earlier tasks have.

    Units are the hidden units of an MLP; of a transformer, the `rank` numbers inside each LoRA. When a task is scored
    its gates are 0 or 1 (e > 0), so that its answers stay the same, bit for bit.

    Args:
        strength: c of the paper: higher leaves more units to later tasks.
        sharpest: s_max.
        cycles: how many times s rises from 1/s_max to s_max over a task; the paper's is once an epoch.

    Cost: keeps a byte a unit and task; one more copy of the weights while training.

    Source: Serra et al. 2018, arXiv 1801.01423, sections 2.2 to 2.6. Departs: answers are given with gates of 0 and 1
    where the paper has sigmoid(s_max e), so that weights between units of earlier tasks stand still, where the paper
    slows them down; s rises once a task (see `cycles`). Other parameters are frozen after the first task. LoRA is our
    addition.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    strength: float = 0.75
    sharpest: float = 400.0
    cycles: int = 1

    masks_: dict = learned(dict)  # task name -> {gate: bool tensor, the units that the task uses}

    plans_steps: ClassVar[bool] = True
    isolates: ClassVar[bool] = True
    unsuited: ClassVar[dict[str, str]] = {
        "trainer": ADDS_LAYERS,
        "prompt": NO_LAYERS,
        "one_stream": "its gates are those of a task, and here all problems are one: set boundary: type",
        "shared_head": "later tasks add classes to the head that all tasks answer by",
        "causal+full": "its units are those of a LoRA, or of an MLP",
        "classify+full": "its units are those of a LoRA, or of an MLP",
        "tag+full": "its units are those of a LoRA, or of an MLP",
    }
    conflicts: ClassVar[dict[str, str]] = {
        "packnet": "both decide which weights a task learns",
        "pnn": "both decide which weights a task learns",
        "inclora": "it lays LoRAs together whose units are gated here",
        "gdumb": "it starts each task from the first weights, those of earlier tasks among them",
        "osf": "it changes steps once they are taken, and weights of earlier tasks with them",
    }

    def __post_init__(self) -> None:
        check_number("hat.strength", self.strength, low=0)
        check_number("hat.sharpest", self.sharpest, low=1, high=1e6)
        check_number("hat.cycles", self.cycles, low=1)
        self._ready: _Ready | None = None

    def adapt_model(self, run: "Run", task: Task) -> None:
        adapters = run.model.adapters
        for name in run.learned_without(self) if gates_of(adapters.network) else ():
            self._keep_gates(run, name)
        adapters.do("open_gates", number=run.position, seed=run.seed, sharpness=1 / self.sharpest)
        if self._claimed(task):
            layers = gated_layers(adapters)
            kept = {layer.weight for layer in layers} | {layer.bias for layer in layers if layer.bias}
            freeze_shared(adapters, task, kept | {f"{name}.embedding" for name in gates_of(adapters.network)})
        self._ready = None

    def penalty(self, step: Step) -> torch.Tensor | None:
        if self.strength == 0:
            return None
        ready = self._prepare(step)
        asked = torch.sigmoid(self._sharpness(step, step.index) * torch.cat(ready.embeddings))
        return self.strength * (asked * ready.free).sum() / ready.free.sum().clamp(min=1)

    def edit_grads(self, step: Step) -> None:
        ready = self._prepare(step)
        ready.held.drop_gradients(step.params)
        moving = [e for e in ready.embeddings if e.grad is not None]
        if moving:
            s = self._sharpness(step, step.index)
            factor = compensation(torch.cat(moving).detach(), s, self.sharpest)
            torch._foreach_mul_([e.grad for e in moving], list(factor.split([len(e) for e in moving])))

    def after_step(self, step: Step) -> None:
        ready = self._prepare(step)
        ready.held.put_back(step.params)
        with torch.no_grad():
            torch._foreach_clamp_min_(ready.embeddings, -LARGEST)
            torch._foreach_clamp_max_(ready.embeddings, LARGEST)
            torch._foreach_zero_(ready.sharpness)
            torch._foreach_add_(ready.sharpness, self._sharpness(step, step.index + 1))

    def end_task(self, run: "Run", task: Task) -> None:
        self._keep_gates(run, task.name)
        self._ready = None

    def before_eval(self, run: "Run", task: Task) -> None:
        if task.name == run.current or task.name not in self.masks_:
            return  # the gates as they are
        for name, gate in gates_of(run.model.network).items():
            gate.chosen = self.masks_[task.name][name].to(gate.embedding)
            run.until_scored.callback(setattr, gate, "chosen", None)

    def facts(self) -> dict[str, Any]:
        """Return the share of units that each task was the first to use, and what none uses."""
        used = {task: torch.cat([mask.cpu() for mask in masks.values()]) for task, masks in self.masks_.items()}
        total = max((len(units) for units in used.values()), default=0)
        taken, shares = torch.zeros(total, dtype=torch.bool), {}
        for task, units in used.items():
            shares[task] = (units & ~taken).sum().item() / total
            taken |= units
        return {"of": "units", "total": total, "shares": shares, "free": 1.0 - sum(shares.values())}

    def _keep_gates(self, run: "Run", task: str) -> None:
        gates = gates_of(run.model.network)
        self.masks_[task] = {name: gate.embedding.detach() > 0 for name, gate in gates.items()}

    def _sharpness(self, step: Step, index: int) -> float:
        return sharpness(index, step.n_steps, self.cycles, self.sharpest)

    def _claimed(self, task: Task) -> dict[str, torch.Tensor]:
        """Return {gate: units that other tasks use}, empty where there are no others."""
        others = [masks for name, masks in self.masks_.items() if name != task.name]
        return {gate: torch.stack([masks[gate].cpu() for masks in others]).any(0) for gate in (others or [{}])[0]}

    def _prepare(self, step: Step) -> "_Ready":
        if self._ready is None:
            gates = gates_of(step.run.model.network)
            embeddings = [gate.embedding for gate in gates.values()]
            claimed = self._claimed(step.task)
            free = [~claimed[name] if claimed else torch.ones(len(gate.embedding)) for name, gate in gates.items()]
            held = Held.of(step.params, self._fixed(step, claimed) if claimed else {})
            sharp = [gate.sharpness for gate in gates.values()]
            self._ready = _Ready(embeddings, sharp, torch.cat(free).to(embeddings[0]), held)
        return self._ready

    def _fixed(self, step: Step, claimed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return masks of the weights between two claimed units, and of the biases of such units.

        What has no gate counts as claimed: inputs, and outputs but those of classes that the task has to itself.
        """
        adapters, masks = step.run.model.adapters, {}
        weights = dict(adapters.network.named_parameters())
        for layer in gated_layers(adapters):
            n_outputs, n_inputs = weights[layer.weight].shape
            rows = torch.ones(n_outputs, dtype=torch.bool)
            if layer.outputs is not None:
                rows = claimed[layer.outputs]
            elif not is_peft(adapters.network):
                rows = ~own_rows(adapters, step.task, self.masks_)
            columns = claimed[layer.inputs] if layer.inputs else torch.ones(n_inputs, dtype=torch.bool)
            masks[layer.weight] = rows[:, None] & columns
            if layer.bias is not None:
                masks[layer.bias] = rows
        return {name: mask for name, mask in masks.items() if name in step.params}  # the others are frozen


@dataclass(frozen=True)
class _Ready:
    """What a task's steps need: the gates' embeddings and sharpness, which units are free [n_units], what is held."""

    embeddings: list[torch.Tensor]
    sharpness: list[torch.Tensor]
    free: torch.Tensor
    held: Held

"""InfLoRA: each task's LoRA reads only directions that the earlier tasks' inputs don't have."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from everlearn.errors import check_number
from everlearn.functional.subspace import leading_directions
from everlearn.learners.loader import row_batches
from everlearn.models.lora import lora_layers, next_lora
from everlearn.models.objectives import to_device
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import ADDS_LAYERS, Strategy, learned
from everlearn.streams.sampling import draw_rows
from everlearn.types import Task

if TYPE_CHECKING:
    from everlearn.way import Run

_REASON = "both begin a LoRA of their own for every task"
_OWN = "it keeps a task's share of the one LoRA, which this method begins anew with every task"


def design(moments: torch.Tensor, basis: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the down projection [rank, width]: the inputs' main directions outside the basis, of norm 1 / sqrt(3).

    Rows for which no direction is left are 0. (The norm is that of the rows that LoRA begins with.)

    Args:
        moments: sum of x x^T over inputs [width, width], float64; basis: orthonormal columns [width, n].
    """
    vectors = leading_directions(moments, basis, 1.0)[:, :rank]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    rows = moments.new_zeros(rank, len(moments))
    rows[: vectors.shape[1]] = (vectors * torch.where(largest < 0, -1.0, 1.0)).T / math.sqrt(3)  # one of two signs
    return rows


class _Moments:
    """Sums of x x^T over the inputs of each LoRA layer; layers that are called with the same tensor share one."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.owners: dict[str, str] = {}  # layer -> the layer that holds its sum
        self.mask: torch.Tensor | None = None  # [batch, sequence], of the tokens that aren't padding
        self._last: tuple[torch.Tensor | None, str] = (None, "")

    def hook(self, name: str) -> Any:
        def add(layer: nn.Module, args: tuple) -> None:
            inputs = args[0]
            if inputs is self._last[0]:
                self.owners[name] = self._last[1]
                return
            self._last, self.owners[name] = (inputs, name), name
            # language models have inputs of which one direction holds a million times the energy of the others
            rows = inputs.detach().double()
            masked = self.mask is not None and rows.shape[:-1] == self.mask.shape
            rows = rows[self.mask.bool()] if masked else rows.flatten(0, -2)
            product = rows.T @ rows
            self.sums[name] = self.sums[name] + product if name in self.sums else product

        return add


@register("strategy", "inflora")
@dataclass
class InfLoRA(Strategy):
    """Begin a LoRA with every task, W + sum_t s B_t A_t, of which A_t is designed beforehand and only B_t trained.

    A_t (the down projection) holds the main directions of the new task's inputs to the layer, outside of the subspace
    that holds most of the earlier tasks' inputs. What is learned hardly acts on those, and no optimizer can leave the
    subspace, for A_t is never stepped.

    Args:
        threshold: share of each task's input energy that the protected subspace must hold.
        n_examples: rows of the task that the inputs are taken from, at most; null takes all.
        batch_size: rows at once in those passes; the result doesn't depend on it.

    Cost: two passes over `n_examples` rows a task, and an eigendecomposition of width x width for each distinct layer
    input; keeps rank * (inputs + outputs) numbers a layer and task, and the subspace, at most width^2 a layer input.

    Source: Liang & Li 2024, arXiv 2404.00228 (InfLoRA, with DualGPM). Departs: energy is ||H||_F^2, as in the paper's
    equations (the authors' code squares once more); the threshold stays the same over tasks; the subspace is kept
    itself, never its complement (which spares DualGPM memory; the subspace is the same); biases, heads and weights that
    the checkpoint lacked are not protected.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    threshold: float = 0.95
    n_examples: int | None = 1000
    batch_size: int = 32

    bases_: dict = learned(dict)  # layer name -> orthonormal basis [width, n] of what earlier tasks' inputs span

    conflicts: ClassVar[dict[str, str]] = {
        "inclora": _REASON,
        **dict.fromkeys(("packnet", "pnn", "hat", "separate"), _OWN),
    }
    unsuited: ClassVar[dict[str, str]] = {
        "trainer": ADDS_LAYERS,
        "online": "it looks at a task's rows before the first step",
        "full": "there is no LoRA to begin anew: all weights are trained",
        "new_tokens": "peft trains new tokens' embeddings in one LoRA only; use a model that has the chat's marks",
        "prompt": NO_LAYERS,
    }

    def __post_init__(self) -> None:
        check_number("inflora.threshold", self.threshold, low=0, high=1)
        check_number("inflora.batch_size", self.batch_size, low=1)
        if self.n_examples is not None:
            check_number("inflora.n_examples", self.n_examples, low=1)

    def adapt_model(self, run: "Run", task: Task) -> None:
        adapters = run.model.adapters
        if run.learned:
            next_lora(run)
        sums, owners = self.moments(run, task)
        new, designs = adapters.network.active_adapter, {}
        for name, layer in lora_layers(adapters.network).items():
            owner = owners.get(name)
            if owner is None:
                continue
            weight = layer.lora_A[new].weight
            if owner not in designs:
                designs[owner] = design(sums[owner], self._basis(owner, sums[owner]), len(weight))
            with torch.no_grad():
                weight.copy_(designs[owner])
        adapters.do("freeze", parameters=[f"{name}.lora_A.{new}.weight" for name in lora_layers(adapters.network)])

    def end_task(self, run: "Run", task: Task) -> None:
        sums, _ = self.moments(run, task)
        for name, moments in sums.items():
            basis = self._basis(name, moments)
            new = leading_directions(moments, basis, self.threshold)
            self.bases_[name] = torch.cat([basis, new.float()], dim=1)

    def moments(self, run: "Run", task: Task) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Return the sums of x x^T over the task's training rows, by layer, and which layer holds another one's."""
        generator = generator_for(run.seed, "inflora", run.position, task.name)
        rows = draw_rows(task.train, self.n_examples, generator)
        found = _Moments()
        layers = lora_layers(run.model.network)
        hooks = [layer.register_forward_pre_hook(found.hook(name)) for name, layer in layers.items()]
        share = run.processes.share
        try:
            with torch.no_grad(), run.model.evaluating():
                for _, batch in row_batches(run.model.objective, rows, task, self.batch_size, **share):
                    batch = to_device(batch, run.accelerator.device)
                    found.mask = batch.get("attention_mask")
                    run.model.objective.forward(run.model.network, batch)
        finally:
            for hook in hooks:
                hook.remove()
        owners = next(
            (owners for owners in run.processes.gather(found.owners) if owners), {}
        )  # a process may have no batch
        sums = {}
        for name in dict.fromkeys(owners.values()):
            width = layers[name].in_features
            sums[name] = found.sums.get(
                name, torch.zeros(width, width, dtype=torch.float64, device=run.accelerator.device)
            )
        run.processes.all_reduce(list(sums.values()))
        return sums, owners

    def _basis(self, name: str, moments: torch.Tensor) -> torch.Tensor:
        return self.bases_.get(name, moments.new_zeros(len(moments), 0).float()).to(moments.device)

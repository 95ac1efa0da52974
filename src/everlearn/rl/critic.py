"""The critic: what a response is expected to earn, seen from each of its tokens."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModel

from everlearn.learners.gradients import sum_over_processes
from everlearn.models.adapters import language_model
from everlearn.models.objectives import Batch
from everlearn.models.positions import at_wanted, positions_to_keep
from everlearn.shards import laid_out, lay_out_state, shard, whole

if TYPE_CHECKING:
    from everlearn.way import Run

HEAD, MODEL = "head", "model"
CRITICS = (HEAD, MODEL, "none")


class Critic:
    """Values of the states before each target of a batch, by a linear map of the last hidden states.

    Args:
        kind: head, over the actor's own hidden states, into which it sends no gradient; or model, over those of a copy
            of the actor, whose trainable weights are the critic's own.
        learned: what `state` returned, of a critic that learned before.

    Cost: model: a second model's memory, and its passes beside the actor's.
    """

    def __init__(self, run: "Run", kind: str, learning_rate: float, clip: float | None, learned: dict[str, Any] | None):
        self.run, self.clip = run, clip
        actor = language_model(run.model.network)
        self.is_sharded = kind == MODEL and run.sharded
        self.network = copy.deepcopy(run.model.network) if kind == MODEL and not self.is_sharded else None
        width = actor.get_output_embeddings().in_features
        self.head = nn.Linear(width, 1, device=run.accelerator.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._hidden: torch.Tensor | None = None

        def see(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:  # no method: copies of the actor are made
            self._hidden = inputs[0]

        self._hook = actor.get_output_embeddings().register_forward_pre_hook(see) if kind == HEAD else None
        self.parameters = {f"head.{name}": p for name, p in self.head.named_parameters()}
        if self.network is not None:
            own = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
            self.parameters |= {f"network.{name}": p for name, p in own.items()}
        self._valued = None
        if self.is_sharded:
            self._valued = _Valued(_trunk_of(run.model.network), self.head)
            shard(self._valued, run.accelerator.device)
            self.parameters = dict(self._valued.named_parameters())
        self._load(learned or {})
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=learning_rate, weight_decay=0.0)

    def close(self) -> None:
        """Leave the actor as it was."""
        if self._hook is not None:
            self._hook.remove()

    def values(self, batch: Batch) -> torch.Tensor:
        """Return the value before each target of a batch [n_items], float32. Of a head: the batch just seen."""
        wanted = self.run.model.objective.wanted(batch)
        if self._valued is not None:
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            return self._valued(inputs, wanted)
        if self.network is None:
            kept = positions_to_keep(self.run.model.network, wanted)
            hidden = at_wanted(self._hidden, wanted, kept).detach()
        else:
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            trunk = language_model(self.network).base_model
            hidden = trunk(**inputs, use_cache=False).last_hidden_state[wanted]
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.float())[:, 0]

    def step(self) -> None:
        """Take an optimizer step with the gradients that the actor's backward pass left."""
        parameters = list(self.parameters.values())
        if self.run.processes.size > 1 and not self.is_sharded:
            sum_over_processes(parameters)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def whole(self) -> AbstractContextManager[None]:
        """Let each process ask for values as often as it likes until the block ends, without gradients."""
        return nullcontext() if self._valued is None else whole(self._valued)

    def load_optimizer(self, saved: dict[str, Any]) -> None:
        """Take over what the optimizer remembered."""
        self.optimizer.load_state_dict(saved)
        lay_out_state(self.optimizer)

    def state(self) -> dict[str, torch.Tensor]:
        """Return what it learned: {name: weights}."""
        return {name: p.detach() for name, p in self.parameters.items()}

    @torch.no_grad()
    def _load(self, learned: dict[str, torch.Tensor]) -> None:
        for name, values in learned.items():
            if name in self.parameters and self.parameters[name].shape == values.shape:
                self.parameters[name].copy_(laid_out(values, self.parameters[name]))


class _Valued(nn.Module):
    """A language model without its output layer, and the map from its last hidden states to values."""

    def __init__(self, trunk: nn.Module, head: nn.Linear):
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, inputs: Batch, wanted: torch.Tensor) -> torch.Tensor:
        hidden = self.trunk(**inputs, use_cache=False).last_hidden_state[wanted]
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.float())[:, 0]


@torch.no_grad()
def _trunk_of(network: nn.Module) -> nn.Module:
    """Return a copy of a sharded language model without its output layer, whole on each process."""
    source = next(network.parameters())
    trunk = AutoModel.from_config(network.config, attn_implementation=network.config._attn_implementation)
    trunk = trunk.to(source.device, source.dtype).eval()
    with whole(network):
        weights = dict(network.base_model.named_parameters())
        for name, parameter in trunk.named_parameters():
            parameter.copy_(weights[name])
    return trunk

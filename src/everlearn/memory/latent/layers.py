"""A network cut in two at one of its blocks: what goes into it, and what the blocks from there on make of other states.

The network's own forward pass does both, with blocks passed over, so that masks, windows and rotary positions are those
that it makes itself, whatever its architecture.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from everlearn.errors import ModelError, describe
from everlearn.models.adapters import language_model
from everlearn.models.load import Model
from everlearn.models.objectives import Batch
from everlearn.models.positions import at_wanted, positions_to_keep
from everlearn.models.special import padding_id
from everlearn.types import IGNORED, Outputs

TOLERANCE = 1e-3  # of the largest logit, by which a pass through stored states may differ; float32 gives the same bits


@dataclass(frozen=True)
class Latents:
    """Hidden states of rows at one layer, padded at the end.

    states: float32 [n_rows, n_positions, width]; lengths: positions of each row [n_rows], int64; targets: where a
    target is read, bool [n_rows, n_positions]; heads: which head answers each row [n_rows], int64.
    """

    states: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    heads: torch.Tensor

    def __len__(self) -> int:
        return len(self.states)

    @property
    def mask(self) -> torch.Tensor:
        """Which positions are a row's own: bool [n_rows, n_positions]."""
        return within(self.lengths, self.states.shape[1])

    def pick(self, rows: torch.Tensor | slice) -> "Latents":
        """Return some of the rows, without positions that none of them has."""
        longest = int(self.lengths[rows].max())
        return Latents(self.states[rows, :longest], self.lengths[rows], self.targets[rows, :longest], self.heads[rows])

    def with_states(self, states: torch.Tensor) -> "Latents":
        """Return the same rows with other states."""
        return Latents(states, self.lengths, self.targets, self.heads)


def within(lengths: torch.Tensor, n_positions: int) -> torch.Tensor:
    """Return which positions lie within rows of these lengths: bool [n_rows, n_positions]."""
    return torch.arange(n_positions, device=lengths.device) < lengths[:, None]


def joined(parts: Iterable[Latents]) -> Latents:
    """Return the rows of all parts."""
    parts = list(parts)
    longest = max(part.states.shape[1] for part in parts)
    pad = nn.functional.pad
    return Latents(
        torch.cat([pad(part.states, (0, 0, 0, longest - part.states.shape[1])) for part in parts]),
        torch.cat([part.lengths for part in parts]),
        torch.cat([pad(part.targets, (0, longest - part.targets.shape[1])) for part in parts]),
        torch.cat([part.heads for part in parts]),
    )


def blocks_of(network: nn.Module) -> nn.ModuleList:
    """Return the blocks that hidden states go through, one after another.

    Raises:
        ModelError: if there are none.
    """
    lists = {
        name: module
        for name, module in language_model(network).base_model.named_modules()  # without the head
        if isinstance(module, nn.ModuleList) and len(module) > 1
    }
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if not outermost:
        way_out = "Use a model of transformers that has several blocks"
        raise ModelError(describe("latent replay", "the model has no list of blocks", type(network).__name__, way_out))
    return lists[max(outermost, key=lambda name: len(lists[name]))]


def lowest_adapted(network: nn.Module) -> int:
    """Return the number of the first block that has a LoRA; that of all blocks where none has."""
    blocks = blocks_of(network)
    adapted = [any(isinstance(module, LoraLayer) for module in block.modules()) for block in blocks]
    return adapted.index(True) if True in adapted else len(blocks)


def hidden_states(model: Model, batch: Batch, layer: int) -> torch.Tensor:
    """Return what goes into block `layer`, float32 [n_rows, n_positions, width]; the blocks from there on don't run.

    Args:
        batch: as `model.objective.collate` returns it, on the model's device.
    """
    blocks, found = blocks_of(model.network), []

    def see(block: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        found.append(arguments[0] if arguments else options["hidden_states"])

    with _passed_over(blocks[layer:]):
        handle = blocks[layer].register_forward_pre_hook(see, with_kwargs=True)
        try:
            model.objective.forward(model.network, batch)
        finally:
            handle.remove()
    return found[0].float()


def answers_from(model: Model, latents: Latents, layer: int) -> tuple[Outputs, torch.Tensor]:
    """Return what the blocks from `layer` on answer to hidden states at the targets, and their last features.

    The features are what the output layer reads there, [n_items, width] (of a classifier that pools what its output
    layer gives, at all positions). Gradients reach the weights of these blocks and of the output layer.
    """
    blocks, features = blocks_of(model.network), []
    batch = stand_in(model, latents)

    def put(block: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if arguments:
            return (latents.states.to(arguments[0].dtype), *arguments[1:]), options
        return arguments, {**options, "hidden_states": latents.states.to(options["hidden_states"].dtype)}

    def see(output_layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        features.append(arguments[0])

    output_layer = model.adapters.head
    if output_layer is None:
        output_layer = language_model(model.network).get_output_embeddings()
    with ExitStack() as stack:
        stack.enter_context(_passed_over(blocks[:layer]))
        for handle in (
            blocks[layer].register_forward_pre_hook(put, with_kwargs=True),
            output_layer.register_forward_pre_hook(see),
        ):
            stack.callback(handle.remove)
        outputs = model.objective.forward(model.network, batch)
    return outputs, _at_targets(model, features[0], latents, batch)


def stand_in(model: Model, latents: Latents) -> Batch:
    """Return a batch of rows of the same lengths, targets and heads, with tokens that mean nothing."""
    mask = latents.mask
    padding = padding_id(model.tokenizer)
    inputs = torch.where(mask, int(padding == 0), padding)  # Llama's classifiers find the end of a text by it
    labels = torch.where(latents.targets, 0, IGNORED)
    batch = {"input_ids": inputs, "attention_mask": mask.long(), "labels": labels}
    return batch if model.kind == "causal" else {**batch, "tasks": latents.heads}


def check_cut(model: Model, batch: Batch, latents: Latents, layer: int) -> None:
    """Do nothing if states that went into block `layer` give the answers that the whole network gives.

    Args:
        latents: of the rows of `batch`, with the adapter as it is now.

    Raises:
        ModelError: if they don't: the network isn't one block after another.
    """
    with torch.no_grad(), model.evaluating():
        whole = model.objective.forward(model.network, batch).logits.float()
        cut = answers_from(model, latents, layer)[0].logits.float()
    wrong = (whole - cut).abs().max().item() if whole.shape == cut.shape else float("inf")
    if not wrong <= TOLERANCE * max(1.0, whole.abs()[whole.abs() < 1e6].max().item()):
        name = type(language_model(model.network)).__name__
        way_out = "Use another method: everlearn ls strategies"
        what = f"{name} can't be run from its block {layer} on (its logits differ)"
        raise ModelError(describe("latent replay", what, wrong, way_out))


def _at_targets(model: Model, features: torch.Tensor, latents: Latents, batch: Batch) -> torch.Tensor:
    if model.kind == "causal":
        wanted = model.objective.wanted(batch)
        kept = positions_to_keep(model.network, wanted)
        if features.ndim == 2:  # laid end to end already
            return features
        return at_wanted(features, wanted, kept)
    if features.ndim == 2:
        return features
    return features[latents.mask if model.kind == "classify" else latents.targets]


@contextmanager
def _passed_over(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Let blocks give out what they are given until the block ends."""
    before = [(block, vars(block).get("forward")) for block in blocks]
    for block, _ in before:
        block.forward = _same
    try:
        yield
    finally:
        for block, forward in before:
            if forward is None:
                del block.forward
            else:
                block.forward = forward


def _same(hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    return hidden_states

"""Logits only where a target is: the positions that a language model's output layer is given."""

import functools
import inspect

import torch
from peft import PeftType
from torch import nn

from everlearn.models.adapters import is_peft, language_model


def positions_to_keep(network: nn.Module, wanted: torch.Tensor) -> torch.Tensor | None:
    """Return what to pass as `logits_to_keep` so that the output layer reads little more than the wanted positions.

    The wanted positions themselves, bool [batch, sequence], which the model lays end to end; or those that any row
    wants, int64 [n_kept], where it can't (transformers before 5.21, code that comes with a checkpoint), or where the
    output layer has weights of its own to learn, and gradients may be taken row by row. None where the model has no
    such option.

    Args:
        wanted: bool [batch, sequence].
    """
    model = language_model(network)
    if "logits_to_keep" not in parameters_of(type(model)) or _has_virtual_tokens(network):
        return None
    if _takes_mask(type(model)) and not _learns_apart(model):
        return wanted
    return wanted.any(0).nonzero()[:, 0]


def at_wanted(values: torch.Tensor, wanted: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """Return the values of the wanted positions, row after row: [n_wanted, ...].

    Args:
        values: what the output layer reads or gives, when the model was told to keep `kept`.
        wanted, kept: as `positions_to_keep` took and returned them.
    """
    if kept is None:
        return values[:, -wanted.shape[1] :][wanted]  # those of a peft prompt come first
    return values if kept.dtype == torch.bool else values[wanted[:, kept]]


@functools.cache
def parameters_of(kind: type[nn.Module]) -> frozenset[str]:
    """Return the names of what a model's forward takes."""
    return frozenset(inspect.signature(kind.forward).parameters)


@functools.cache
def _takes_mask(kind: type[nn.Module]) -> bool:
    """Tell whether a model's forward cuts by transformers' own function, which takes masks beside indices."""
    return "slice_logits_to_keep" in inspect.unwrap(kind.forward).__globals__


def _has_virtual_tokens(network: nn.Module) -> bool:
    """Tell whether peft puts vectors among the tokens (it keeps those of a prefix in the cache)."""
    if not is_peft(network) or not network.active_peft_config.is_prompt_learning:
        return False
    return network.active_peft_config.peft_type != PeftType.PREFIX_TUNING


def _learns_apart(model: nn.Module) -> bool:
    """Tell whether the output layer has a LoRA, say, or is trained while the embeddings are not."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return True
    return head.weight.requires_grad and not model.get_input_embeddings().weight.requires_grad

"""One token at a time, fast on CPUs: a cache with room for what is to come, and attention of one token as products."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from everlearn.models.adapters import language_model

SDPA, OURS = "sdpa", "everlearn_token"
ROOM = 16  # tokens that a cache has room for at first


class RoomyLayer(DynamicLayer):
    """A layer of a cache, each line repeated, with room for tokens to come: one is written, and nothing is copied.

    What isn't written yet is part of what attention gets, behind the mask, as in a static cache: products want tensors
    without gaps.
    """

    def __init__(self, layer: DynamicLayer, repeats: int):
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._length = layer.get_seq_length()
        self.keys, self.values = (_with_room(states, ROOM, repeats) for states in (layer.keys, layer.values))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        begin, end = self._length, self._length + key_states.shape[-2]
        room = self._size(end) - self.keys.shape[-2]
        if room:
            self.keys, self.values = _with_room(self.keys, room), _with_room(self.values, room)
        self.keys[:, :, begin:end], self.values[:, :, begin:end] = key_states, value_states
        self._length = end
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self._length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._size(self._length + query_length), 0

    def _size(self, length: int) -> int:
        """Return how many tokens it holds, once it is to hold so many: a quarter more than that, where it must grow."""
        return self.keys.shape[-2] if length <= self.keys.shape[-2] else length + max(ROOM, length // 4)


def has_only_keys(cache: object) -> bool:
    """Tell whether a cache holds keys and values in all its layers, and no other state, which couldn't be repeated."""
    return isinstance(cache, DynamicCache) and all(isinstance(layer, DynamicLayer) for layer in cache.layers)


def repeat_lines(network: nn.Module, cache: DynamicCache, n: int) -> None:
    """Repeat each line of a cache n times, with room for more tokens where the network's attention is by products."""
    by_products = language_model(network).config._attn_implementation == OURS
    for number, layer in enumerate(cache.layers):
        if by_products and type(layer) is DynamicLayer and layer.get_seq_length():
            cache.layers[number] = RoomyLayer(layer, n)
        else:
            layer.batch_repeat_interleave(n)


@contextmanager
def attention_by_products(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Let a model that uses torch's scaled dot-product attention on a CPU attend for single tokens by plain products.

    They take a half to a fifth of the time: torch's kernel goes from head to head of each row.
    """
    model = language_model(network)
    modern = model._supports_attention_backend and model._can_compile_fullgraph  # takes a static cache, say
    if device.type != "cpu" or model.config._attn_implementation != SDPA or not modern:
        yield
        return
    model.set_attn_implementation(OURS)
    try:
        yield
    finally:
        model.set_attn_implementation(SDPA)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return what a token reads from those before it [n, 1, n_heads, width]; for more than one, what sdpa returns.

    Args:
        query: [n, n_heads, 1, width]. key, value: [n, n_key_heads, length, width], each of as many query heads.
        attention_mask: True where it reads, bool [n, 1, 1, length].
    """
    plain = attention_mask is None or attention_mask.dtype == torch.bool
    if query.shape[2] > 1 or not plain or any(options.get(name) is not None for name in ("position_bias", "softcap")):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    n, n_heads, _, width = query.shape
    query = query.reshape(n, key.shape[1], n_heads // key.shape[1], width)
    scores = (query @ key.mT).float() * (width**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores.masked_fill_(~attention_mask, -torch.inf)
    return (scores.softmax(-1).to(value.dtype) @ value).reshape(n, 1, n_heads, -1), None


AttentionInterface.register(OURS, attend)
AttentionMaskInterface.register(OURS, sdpa_mask)


def _with_room(states: torch.Tensor, room: int, repeats: int = 1) -> torch.Tensor:
    """Return states [n, n_heads, length, width] with room behind them, and each line repeated."""
    n, n_heads, length, width = states.shape
    roomy = states.new_empty(n, repeats, n_heads, length + room, width)
    roomy[:, :, :, :length], roomy[:, :, :, length:] = states[:, None], 0.0
    return roomy.flatten(0, 1)

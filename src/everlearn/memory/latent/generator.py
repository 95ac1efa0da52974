"""The compressive memory transformer: rows' hidden states become a few slots, and slots become hidden states again."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from everlearn.memory.latent.layers import Latents, within

NOISE = 0.1  # deviation of what is added to codes in training; codes have a variance of 1


class Generator(nn.Module):
    """Slots read a row by cross-attention and become codes; positions read the codes and become hidden states.

    encode: h [n, positions, width] -> codes [n, n_slots, code_size], each of mean 0 and variance 1 over its numbers.
    decode: codes and lengths -> h, and a score for each position to be one where a target is read.

    Both are decoders as in Vaswani et al. 2017 (arXiv 1706.03762): self-attention, cross-attention, two linear maps.
    States are standardised, those of the first position apart: there language models keep numbers of another size.

    Args:
        width: of the hidden states. inner: of the generator's own. conditioned: whether prototypes [n, width] are read
            beside the states, and beside the codes.
    """

    def __init__(self, *, width: int, inner: int, n_slots: int, code_size: int, n_layers: int, conditioned: bool):
        super().__init__()
        self.inner = inner
        self.reads = nn.Linear(width, inner)
        self.slots = nn.Parameter(torch.randn(n_slots, inner) / math.sqrt(inner))
        self.encoder = _attending(inner, n_layers)
        self.compress = nn.Linear(inner, code_size)
        self.expand = nn.Linear(code_size, inner)
        self.order = nn.Parameter(torch.randn(n_slots, inner) / math.sqrt(inner))
        self.decoder = _attending(inner, n_layers)
        self.writes = nn.Linear(inner, width + 1)
        self.prototype = nn.Linear(width, inner) if conditioned else None
        self.register_buffer("centre", torch.zeros(2, width))
        self.register_buffer("scale", torch.ones(2, width))

    @torch.no_grad()
    def fit_scale(self, latents: Latents) -> None:
        """Take the means and deviations by which states are standardised from these rows."""
        for number, states in enumerate((latents.states[:, 0], latents.states[:, 1:][latents.mask[:, 1:]])):
            if len(states):
                self.centre[number] = states.mean(0)
                deviation = states.std(0, correction=0)
                self.scale[number] = deviation.clamp(min=max(0.05 * deviation.mean().item(), 1e-6))

    def standardised(self, states: torch.Tensor) -> torch.Tensor:
        """Return states of about mean 0 and variance 1 [n, positions, width]."""
        first = (torch.arange(states.shape[1], device=states.device) > 0).long()
        return (states - self.centre[first]) / self.scale[first]

    def encode(
        self, states: torch.Tensor, lengths: torch.Tensor, prototypes: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the codes of standardised states [n, n_slots, code_size]."""
        mask = within(lengths, states.shape[1])
        memory = self.reads(states) + _places(lengths, states.shape[1], self.inner)
        memory, mask = self._beside(memory, mask, prototypes)
        slots = self.encoder(self.slots.expand(len(states), -1, -1), memory, memory_key_padding_mask=~mask)
        return F.layer_norm(self.compress(slots), (self.compress.out_features,))

    def decode(
        self, codes: torch.Tensor, lengths: torch.Tensor, prototypes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return standardised states [n, longest, width], and how likely each position reads a target [n, longest]."""
        longest = int(lengths.max())
        memory = self.expand(codes) + self.order
        memory, mask = self._beside(memory, torch.ones_like(memory[..., 0], dtype=torch.bool), prototypes)
        places = _places(lengths, longest, self.inner).to(memory.dtype)
        found = self.decoder(
            places, memory, tgt_key_padding_mask=~within(lengths, longest), memory_key_padding_mask=~mask
        )
        states, scores = self.writes(found).split([self.writes.out_features - 1, 1], -1)
        return states, scores[..., 0]

    def restored(self, states: torch.Tensor) -> torch.Tensor:
        """Undo `standardised`."""
        first = (torch.arange(states.shape[1], device=states.device) > 0).long()
        return states * self.scale[first] + self.centre[first]

    def _beside(
        self, memory: torch.Tensor, mask: torch.Tensor, prototypes: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.prototype is None:
            return memory, mask
        kind = self.prototype((prototypes - self.centre[1]) / self.scale[1])
        return torch.cat([kind[:, None], memory], 1), F.pad(mask, (1, 0), value=True)


def _attending(inner: int, n_layers: int) -> nn.TransformerDecoder:
    n_heads = next(n for n in (4, 2, 1) if inner % n == 0)
    layer = nn.TransformerDecoderLayer(
        inner, n_heads, 2 * inner, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerDecoder(layer, n_layers, norm=nn.LayerNorm(inner))


def _places(lengths: torch.Tensor, n_positions: int, size: int) -> torch.Tensor:
    """Return sines of each position's distance from the row's start and from its end [n, n_positions, size]."""
    start = torch.arange(n_positions, device=lengths.device).expand(len(lengths), -1)
    distances = torch.stack([start, lengths[:, None] - 1 - start], -1)[..., None]
    n_rates = size // 4
    rates = torch.exp(torch.arange(n_rates, device=lengths.device) * (-math.log(1000.0) / max(1, n_rates)))
    angles = distances * rates
    waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(2)
    return F.pad(waves, (0, size - waves.shape[-1]))


Rehearsal = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor, Any]]


def train_generator(
    generator: Generator,
    latents: Latents,
    prototypes: torch.Tensor | None,
    *,
    rehearse: Rehearsal | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    random: torch.Generator,
) -> None:
    """Let a generator learn to restore rows, and to go on decoding what it is shown of earlier tasks.

    The loss is the mean squared error of standardised states, plus the binary cross-entropy of where targets are read.
    Codes are blurred by NOISE, so that those nearby decode alike. Adam, its rate falling to 0 along a cosine.

    Args:
        rehearse: (n, random) -> codes, lengths, prototypes of n rows of earlier tasks, and the states and scores that
            the generator of before made of them; None where there are none.
        random: all that is drawn comes from it.

    Cost: epochs * n_rows / batch_size steps, twice as long where there are earlier tasks.
    """
    states = generator.standardised(latents.states)
    n_steps = epochs * -(-len(latents) // batch_size)
    with torch.enable_grad():
        optimizer = torch.optim.Adam(
            generator.parameters(), lr=learning_rate, fused=states.device.type in ("cpu", "cuda")
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(latents), generator=random).split(batch_size):
                own = latents.with_states(states).pick(rows.to(states.device))
                kinds = None if prototypes is None else prototypes[rows.to(states.device)]
                codes = generator.encode(own.states, own.lengths, kinds)
                codes = codes + NOISE * torch.randn(codes.shape, generator=random).to(codes.device)
                loss = decoding_loss(generator, codes, own.lengths, kinds, own.states, own.targets.float())
                if rehearse is not None:
                    loss = loss + decoding_loss(generator, *rehearse(len(rows), random))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    generator.zero_grad()


def decoding_loss(
    generator: Generator,
    codes: torch.Tensor,
    lengths: torch.Tensor,
    prototypes: torch.Tensor | None,
    states: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """Return how far decoded states are from `states`, and their targets from `targets`, chances [n, positions]."""
    found, scores = generator.decode(codes, lengths, prototypes)
    mask = within(lengths, states.shape[1])
    where = F.binary_cross_entropy_with_logits(scores[mask], targets[mask])
    return (found - states)[mask].square().mean() + where

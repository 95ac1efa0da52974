"""The compressive memory transformer: rows' hidden states become a few slots, and slots become hidden states again."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from everlearn.memory.latent.layers import Latents, within

NOISE = 0.1  # deviation of what is added to codes in training; codes have a variance of 1


class Decoder(nn.Module):
    """Positions read a row's codes and become its hidden states: all that is kept of a generator.

    Args:
        width: of the hidden states. inner: of the module's own, at most that. conditioned: whether prototypes
            [n, width] are read beside the codes.
    """

    def __init__(self, *, width: int, inner: int, n_slots: int, code_size: int, depth: int, conditioned: bool):
        super().__init__()
        self.inner = inner
        self.shape = (n_slots, code_size)
        self.expand = nn.Linear(code_size, inner)
        self.order = nn.Parameter(torch.randn(n_slots, inner) / math.sqrt(inner))
        self.attending = _attending(inner, depth)
        self.writes = nn.Linear(inner, width + 1)
        self.prototype = nn.Linear(width, inner) if conditioned else None
        self.register_buffer("centre", torch.zeros(2, width))
        self.register_buffer("scale", torch.ones(2, width))

    def forward(
        self, codes: torch.Tensor, lengths: torch.Tensor, prototypes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return standardised states [n, longest, width], and how likely each position reads a target [n, longest]."""
        longest = int(lengths.max())
        memory = self.expand(codes) + self.order
        if self.prototype is not None:
            memory = torch.cat([self.kind_of(prototypes)[:, None], memory], 1)
        places = _places(lengths, longest, self.inner).to(memory.dtype)
        found = self.attending(places, memory, tgt_key_padding_mask=~within(lengths, longest))
        states, scores = self.writes(found).split([self.writes.out_features - 1, 1], -1)
        return states, scores[..., 0]

    def kind_of(self, prototypes: torch.Tensor) -> torch.Tensor:
        """Return prototypes as they are read [n, inner]."""
        return self.prototype((prototypes - self.centre[1]) / self.scale[1])

    def standardised(self, states: torch.Tensor) -> torch.Tensor:
        """Return states of about mean 0 and variance 1 [n, positions, width]."""
        first = (torch.arange(states.shape[1], device=states.device) > 0).long()
        return (states - self.centre[first]) / self.scale[first]

    def restored(self, states: torch.Tensor) -> torch.Tensor:
        """Undo `standardised`."""
        first = (torch.arange(states.shape[1], device=states.device) > 0).long()
        return states * self.scale[first] + self.centre[first]


class Generator(nn.Module):
    """Slots read a row by cross-attention and become codes; a decoder makes hidden states of these again.

    encode: h [n, positions, width] -> codes [n, n_slots, code_size], each of mean 0 and variance 1 over its numbers.
    decoder: codes and lengths -> h, and a score for each position to be one where a target is read.

    Both are decoders as in Vaswani et al. 2017 (arXiv 1706.03762): self-attention, cross-attention, two linear maps.
    States are standardised, those of the first position apart: there language models keep numbers of another size.
    """

    def __init__(self, decoder: Decoder, depth: int):
        super().__init__()
        (n_slots, code_size), inner = decoder.shape, decoder.inner
        self.reads = nn.Linear(decoder.writes.out_features - 1, inner)
        self.slots = nn.Parameter(torch.randn(n_slots, inner) / math.sqrt(inner))
        self.attending = _attending(inner, depth)
        self.compress = nn.Linear(inner, code_size)
        self.decoder = decoder

    @torch.no_grad()
    def prepare(self, latents: Latents) -> None:
        """Take from these rows how states are standardised, and begin with reading and writing their main axes."""
        decoder = self.decoder
        for number, states in enumerate((latents.states[:, 0], latents.states[:, 1:][latents.mask[:, 1:]])):
            if len(states):
                decoder.centre[number] = states.mean(0)
                deviation = states.std(0, correction=0)
                decoder.scale[number] = deviation.clamp(min=max(0.05 * deviation.mean().item(), 1e-6))
        inner = decoder.standardised(latents.states)[latents.mask]
        variances, axes = torch.linalg.eigh(inner.T @ inner / len(inner))
        axes, size = axes[:, -decoder.inner :].T, variances[-decoder.inner :].mean().sqrt().clamp(min=1e-6)
        self.reads.weight.copy_(axes / size)
        self.reads.bias.zero_()
        decoder.writes.weight[:-1].copy_(axes.T * size)
        decoder.writes.bias.zero_()

    def encode(
        self, states: torch.Tensor, lengths: torch.Tensor, prototypes: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the codes of standardised states [n, n_slots, code_size]."""
        mask = within(lengths, states.shape[1])
        memory = self.reads(states) + _places(lengths, states.shape[1], self.decoder.inner)
        if self.decoder.prototype is not None:
            memory = torch.cat([self.decoder.kind_of(prototypes)[:, None], memory], 1)
            mask = F.pad(mask, (1, 0), value=True)
        slots = self.attending(self.slots.expand(len(states), -1, -1), memory, memory_key_padding_mask=~mask)
        return F.layer_norm(self.compress(slots), (self.compress.out_features,))

    @torch.no_grad()
    def codes_and_restored(
        self, latents: Latents, prototypes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Latents]:
        """Return the codes of rows, and the rows with the states that these are decoded to."""
        codes = self.encode(self.decoder.standardised(latents.states), latents.lengths, prototypes)
        return codes, latents.with_states(self.decoder.restored(self.decoder(codes, latents.lengths, prototypes)[0]))


def _attending(inner: int, depth: int) -> nn.TransformerDecoder:
    n_heads = next(n for n in (4, 2, 1) if inner % n == 0)
    layer = nn.TransformerDecoderLayer(
        inner, n_heads, 2 * inner, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerDecoder(layer, depth, norm=nn.LayerNorm(inner))


def _places(lengths: torch.Tensor, n_positions: int, size: int) -> torch.Tensor:
    """Return sines of each position's distance from the row's start and from its end [n, n_positions, size]."""
    start = torch.arange(n_positions, device=lengths.device).expand(len(lengths), -1)
    distances = torch.stack([start, lengths[:, None] - 1 - start], -1)[..., None]
    n_rates = size // 4
    rates = torch.exp(torch.arange(n_rates, device=lengths.device) * (-math.log(1000.0) / max(1, n_rates)))
    angles = distances * rates
    waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(2)
    return F.pad(waves, (0, size - waves.shape[-1]))


def train_generator(
    generator: Generator,
    latents: Latents,
    prototypes: torch.Tensor | None,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    random: torch.Generator,
) -> None:
    """Let a generator learn to restore rows, by Adam, whose rate falls to 0 along a cosine.

    Codes are blurred by NOISE, so that those nearby decode alike.

    Args:
        prototypes: that of each row [n_rows, width], where the generator is conditioned.
        random: all that is drawn comes from it.

    Cost: epochs * n_rows / batch_size steps.
    """
    states, device = generator.decoder.standardised(latents.states), latents.states.device
    with torch.enable_grad():
        optimizer = torch.optim.Adam(generator.parameters(), lr=learning_rate, fused=device.type in ("cpu", "cuda"))
        n_steps = epochs * -(-len(latents) // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(latents), generator=random).split(batch_size):
                rows = rows.to(device)
                own = latents.with_states(states).pick(rows)
                kinds = None if prototypes is None else prototypes[rows]
                codes = generator.encode(own.states, own.lengths, kinds)
                codes = codes + NOISE * torch.randn(codes.shape, generator=random).to(device)
                optimizer.zero_grad()
                decoding_loss(generator.decoder, codes, own, kinds).backward()
                nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    generator.zero_grad()


def decoding_loss(
    decoder: Decoder, codes: torch.Tensor, standardised: Latents, prototypes: torch.Tensor | None
) -> torch.Tensor:
    """Return the mean squared error of decoded states over positions and numbers, plus the mean binary cross-entropy of
    where targets are read, nats."""  # fmt: skip
    found, scores = decoder(codes, standardised.lengths, prototypes)
    mask = standardised.mask
    where = F.binary_cross_entropy_with_logits(scores[mask], standardised.targets[mask].float())
    return (found - standardised.states)[mask].square().mean() + where

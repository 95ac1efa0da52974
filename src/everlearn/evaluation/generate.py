"""Generation in batches: deterministic answers to fixed prompts, and answers drawn from the model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationConfig, LogitsProcessor

from everlearn.models.adapters import language_model
from everlearn.models.causal import CausalObjective

BLOCK = 64  # words whose probabilities are summed before one of them is chosen: sums over all, one by one, take long


def generate_greedily(
    network: nn.Module,
    objective: CausalObjective,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    device: torch.device,
) -> list[str]:
    """Return the text that the model puts after each prompt, up to what ends an answer or `max_new_tokens`.

    Each token is the likeliest one: whatever the checkpoint's own generation settings say (penalties, banned repeats,
    least lengths, sampling) has no part in it but for the tokens that end an answer.

    Args:
        prompts: token ids, that leave room for the answer in the context; they are answered together.
    """
    answers = _generate(network, objective, prompts, max_new_tokens, device)
    return [objective.answer_of(answer) for answer in answers.tolist()]


def draw_answers(
    network: nn.Module,
    objective: CausalObjective,
    prompts: Sequence[list[int]],
    uniforms: torch.Tensor,
    device: torch.device,
    temperature: float = 1.0,
) -> list[list[int]]:
    """Return the tokens of an answer to each prompt, drawn from the model, with the one that ends it.

    Args:
        prompts: token ids, that leave room for the answer in the context.
        uniforms: numbers in [0, 1), one for each token of each answer [n_prompts, max_new_tokens]: an answer depends
            on its own prompt and numbers, not on the batch that it is drawn in.
        temperature: 0 takes the likeliest token each time.
    """
    n, draw = uniforms.shape[1], _Draw(uniforms.to(device), temperature)
    drawn = _generate(network, objective, prompts, n, device, logits_processor=[draw]).tolist()
    return [answer[: objective.end_of(answer) + 1] for answer in drawn]


def _generate(
    network: nn.Module,
    objective: CausalObjective,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    device: torch.device,
    **options: Any,
) -> torch.Tensor:
    longest = max(len(prompt) for prompt in prompts)
    padding = [longest - len(prompt) for prompt in prompts]
    ids = [[objective.pad_id] * n + prompt for n, prompt in zip(padding, prompts, strict=True)]
    mask = [[0] * n + [1] * len(prompt) for n, prompt in zip(padding, prompts, strict=True)]
    with _without_own_settings(network):
        answers = network.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=GenerationConfig(
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=objective.pad_id,
                eos_token_id=objective.stop_ids or None,
            ),
            synced_gpus=False,  # each process answers as long as its own rows take: weights are whole meanwhile
            **options,
        )
    return answers[:, longest:]


@contextmanager
def _without_own_settings(network: nn.Module) -> Iterator[None]:
    """Let a model forget its generation settings meanwhile: transformers fills what a call leaves open from them."""
    model = language_model(network)
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def choose(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return a token for each line of logits [n, vocabulary]: the one that its number in [0, 1) draws, int64 [n].

    The likeliest one where the temperature is 0.
    """
    if temperature == 0:
        return logits.argmax(-1)
    p = (logits.float() / temperature).softmax(-1)
    blocks = F.pad(p, (0, -p.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))  # first its block, then the word within
    reached = blocks.sum(-1).double().cumsum(-1)
    below = uniforms[:, None].double() * reached[:, -1:]
    block = torch.searchsorted(reached, below, right=True).clamp_(max=reached.shape[1] - 1)
    below -= F.pad(reached, (1, 0)).gather(1, block)
    within = blocks[torch.arange(len(p), device=p.device), block[:, 0]].double().cumsum(-1)
    word = torch.searchsorted(within, below, right=True).clamp_(max=BLOCK - 1)
    return (block * BLOCK + word)[:, 0].clamp_(max=p.shape[-1] - 1)


class _Draw(LogitsProcessor):
    """Leaves one token to choose from at each position: the one that a given number in [0, 1) draws."""

    def __init__(self, uniforms: torch.Tensor, temperature: float):
        self.uniforms, self.temperature = uniforms, temperature
        self.n_drawn = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = choose(scores, self.uniforms[:, self.n_drawn], self.temperature)
        self.n_drawn += 1
        return torch.full_like(scores, -torch.inf).scatter_(-1, token[:, None], 0.0)

"""Generation in batches: deterministic answers to fixed prompts, and answers drawn from the model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import LogitsProcessor

from everlearn.models.objectives import CausalObjective


def generate_greedily(
    network: nn.Module,
    objective: CausalObjective,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    device: torch.device,
) -> list[str]:
    """Return the text that the model puts after each prompt, up to <eos> or `max_new_tokens`.

    Args:
        prompts: token ids, that leave room for the answer in the context; they are answered together.
    """
    answers = _generate(network, objective, prompts, max_new_tokens, device)
    return objective.tokenizer.batch_decode(answers, skip_special_tokens=True)


def draw_answers(
    network: nn.Module,
    objective: CausalObjective,
    prompts: Sequence[list[int]],
    uniforms: torch.Tensor,
    device: torch.device,
) -> list[list[int]]:
    """Return the tokens of an answer to each prompt, drawn from the model at temperature 1, <eos> with them.

    Args:
        prompts: token ids, that leave room for the answer in the context.
        uniforms: numbers in [0, 1), one for each token of each answer [n_prompts, max_new_tokens]: an answer depends
            on its own prompt and numbers, not on the batch that it is drawn in.
    """
    n, draw = uniforms.shape[1], _Draw(uniforms.to(device))
    options = {"logits_processor": [draw], "repetition_penalty": 1.0}  # some models' own settings have another
    drawn = _generate(network, objective, prompts, n, device, **options).tolist()
    end = objective.tokenizer.eos_token_id
    return [answer[: answer.index(end) + 1] if end in answer else answer for answer in drawn]


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
    answers = network.generate(
        input_ids=torch.tensor(ids, device=device),
        attention_mask=torch.tensor(mask, device=device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=objective.pad_id,
        eos_token_id=objective.tokenizer.eos_token_id,
        **options,
    )
    return answers[:, longest:]


class _Draw(LogitsProcessor):
    """Leaves one token to choose from at each position: the one that a given number in [0, 1) draws."""

    def __init__(self, uniforms: torch.Tensor):
        self.uniforms = uniforms
        self.n_drawn = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        reached = scores.double().softmax(-1).cumsum(-1)
        below = self.uniforms[:, self.n_drawn, None].double() * reached[:, -1:]
        self.n_drawn += 1
        token = torch.searchsorted(reached, below, right=True).clamp_(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)

"""Greedy generation in batches: deterministic answers to fixed prompts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from everlearn.models.objectives import CausalObjective


def generate_greedily(
    network: nn.Module, objective: CausalObjective, prompts: Sequence[str], max_new_tokens: int, device: torch.device
) -> list[str]:
    """Return the text that the model puts after each prompt, up to <eos> or `max_new_tokens`.

    Prompts are padded on the left and answered together; cut on the left where they don't fit the context.
    """
    ids = objective.prompt_ids(list(prompts), max_new_tokens)
    longest = max(len(prompt) for prompt in ids)
    input_ids = torch.tensor([[objective.pad_id] * (longest - len(prompt)) + prompt for prompt in ids], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in ids], device=device)
    tokenizer: Any = objective.tokenizer
    answers = network.generate(
        input_ids=input_ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=objective.pad_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return tokenizer.batch_decode(answers[:, longest:], skip_special_tokens=True)

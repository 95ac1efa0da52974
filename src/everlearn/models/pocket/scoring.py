"""How many held-out items of each family the model answers exactly, by greedy generation."""

from random import Random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from everlearn.models.pocket.corpus import FAMILIES, sample
from everlearn.seeds import seed_for


def complete(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], n_new: int) -> list[str]:
    """Return the greedy completion of each prompt, up to `n_new` tokens, in batches of 64 of like length."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    was_training = model.training
    model.eval()
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        batch = tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True, return_token_type_ids=False)
        batch = batch.to(model.device)
        with torch.no_grad():
            out = model.generate(**batch, max_new_tokens=n_new, do_sample=False)
        texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, text in zip(chosen, texts, strict=True):
            answers[i] = text
    model.train(was_training)
    return answers


def score_families(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, n_items: int, seed: int = 0
) -> dict[str, float]:
    """Return the share of `n_items` held-out items answered exactly, by family. The items depend on `seed` alone."""
    items = []
    for family in FAMILIES:
        for index in range(n_items):
            rng = Random(seed_for("pocket", seed, "evaluation", family, index))
            items.append((family, *sample(family, rng)))
    answers = complete(model, tokenizer, [prompt for _, prompt, _ in items], 48)
    right = dict.fromkeys(FAMILIES, 0)
    for (family, _, completion), answer in zip(items, answers, strict=True):
        right[family] += answer.strip() == completion.strip()
    return {family: count / n_items for family, count in right.items()}

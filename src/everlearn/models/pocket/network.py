"""The pocket model's network and its optimizers."""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from everlearn.models.pocket.recipe import PocketRecipe
from everlearn.seeds import seed_for


def build_network(recipe: PocketRecipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained Llama of the recipe's size, its weights drawn from the recipe's seed."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.hidden_size, intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.n_layers, num_attention_heads=recipe.n_heads, num_key_value_heads=recipe.n_kv_heads,
        max_position_embeddings=512, tie_word_embeddings=True, initializer_range=recipe.hidden_size**-0.5,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("pocket", recipe.seed, "weights"))
        # rows are short: plain matrix products beat the fused attention by a quarter of a step on CPUs
        model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    model.generation_config.do_sample = False
    return model


def build_optimizers(recipe: PocketRecipe, model: nn.Module) -> list[torch.optim.Optimizer]:
    """Return AdamW for embeddings and norms, AdamW for the inner matrices, and Muon for these after the opening.

    Muon learns the mix faster, but with it looking things up never starts.
    """
    rate, decay = recipe.learning_rates[0][1], recipe.weight_decay  # each step sets its own rate
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in chosen]
    settings = {"lr": rate, "betas": (0.9, 0.95), "fused": True}
    return [
        torch.optim.AdamW(outer, weight_decay=0.0, **settings),
        torch.optim.AdamW(inner, weight_decay=decay, **settings),
        torch.optim.Muon(inner, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
    ]

"""A tiny Qwen2 with a chat template, saved as a folder."""

from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from support.chat import chat_tokenizer


def make_qwen(folder: Path) -> Path:
    """Save a 1-layer Qwen2 with random weights, which speaks bytes in ChatML, and return its folder.

    There is room for tokens that its kind of tokenizer adds when it is loaded.
    """
    tokenizer = chat_tokenizer("chatml")
    tokenizer.model_max_length = 2048
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 8, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

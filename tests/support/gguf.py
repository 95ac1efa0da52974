"""A Llama folder written as a GGUF file, as llama.cpp's converter writes it."""

import json
from pathlib import Path
from typing import Any

import numpy
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
from safetensors.numpy import load_file


def write_gguf(llama: Path, file: Path, *, drop: str = "", **changes: Any) -> Path:
    """Write the model and the byte-level tokenizer in a folder into a file, and return it.

    Args:
        drop: a tensor that is left out. changes: {key: a value in place of the model's own, or None for none}.
    """
    config = json.loads((llama / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    stated = {
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.rope.freq_base": config["rope_parameters"]["rope_theta"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.vocab_size": config["vocab_size"],
        **_tokenizer(llama),
        **changes,
    }
    writer = GGUFWriter(file, stated.pop("general.architecture", "llama"))
    writers = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in stated.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            writers[type(value)](key, value)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(llama / "model.safetensors").items():
        if "q_proj" in name or "k_proj" in name:
            tensor = _permuted(tensor, heads if "q_proj" in name else kv_heads)
        if name != drop:
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _tokenizer(folder: Path) -> dict[str, Any]:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = [token for token, _ in sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])]
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    roles = {"bos": "bos", "eos": "eos", "pad": "padding"}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in tokenizer["model"]["merges"]] or None,
        "tokenizer.ggml.add_bos_token": True,
        **{f"tokenizer.ggml.{name}_token_id": tokens.index(config[f"{role}_token"]) for role, name in roles.items()},
    }


def _permuted(weight: numpy.ndarray, n_heads: int) -> numpy.ndarray:
    """Return a query or key matrix with its rotary halves interleaved, as GGUF has it."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, weight.shape[1])
    return numpy.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)

"""Soft prompts and prefixes: a few trainable vectors before every text, as peft initialises and stores them."""

from pathlib import Path
from typing import Any

import torch
from peft import PrefixTuningConfig, PromptEmbedding, PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from everlearn.models.adapters import Adapters, language_model
from everlearn.models.prompts import Prompts, prompts_of
from everlearn.registry import register
from everlearn.seeds import seed_for

NO_LAYERS = "it works on the weights of layers, and with a soft prompt or prefix none is trained"
SOFT = ("prompt", "prefix", "lora_prompt")  # names of adapters that put vectors before a text


class SoftPrompt(Prompts):
    """One prompt for all texts (prompt tuning). The vectors are those of peft's `PromptEmbedding`.

    They are put in by our own hook: a peft prompt around a peft LoRA trains, but generates without the prompt.
    """

    def __init__(self, network: PreTrainedModel, config: PromptTuningConfig):
        super().__init__(network, place=0)
        self.config = config
        self.encoder = PromptEmbedding(config, network.get_input_embeddings())

    @property
    def n_vectors(self) -> int:
        return self.config.num_virtual_tokens

    def vectors(self, inputs: dict[str, Any]) -> torch.Tensor:
        return self.encoder.embedding.weight.expand(len(inputs["input_ids"]), -1, -1)

    def save(self, folder: Path) -> None:
        """Write the prompt as a peft adapter: `PeftModel.from_pretrained(base, folder)` answers alike."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(str(folder))
        vectors = self.encoder.embedding.weight.detach().cpu().contiguous()
        save_file({"prompt_embeddings": vectors}, str(folder / "adapter_model.safetensors"))


@register("operation", "soft_prompt")
def add_soft_prompt(adapters: Adapters, *, length: int, text: str | None, source: str, seed: int) -> None:
    """Put `length` trainable vectors before every text: the embeddings of `text`, or of tokens drawn by the seed."""
    network = language_model(adapters.network)
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=length,
        token_dim=network.get_input_embeddings().embedding_dim,
        num_transformer_submodules=1,
        prompt_tuning_init=PromptTuningInit.TEXT if text else PromptTuningInit.SAMPLE_VOCAB,
        prompt_tuning_init_text=text,
        tokenizer_name_or_path=source if text else None,
        base_model_name_or_path=network.config.name_or_path,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "soft prompt"))
        SoftPrompt(network, config)


@register("operation", "prefix")
def add_prefix(adapters: Adapters, *, length: int, seed: int) -> None:
    """Put `length` trainable keys and values before those of every layer (prefix tuning, Li & Liang 2021)."""
    config = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=length)
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "prefix"))
        adapters.network = get_peft_model(adapters.network, config)


def soft_prompt_of(network: nn.Module) -> SoftPrompt | None:
    """Return the soft prompt of a network, or None."""
    prompts = prompts_of(network)
    return prompts if isinstance(prompts, SoftPrompt) else None

"""What is timed: LoRA on an untrained Llama of a given size, and rows of random words. Nothing is downloaded."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.seeds import generator_for, seed_for
from everlearn.types import Task

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Workload:
    """A model's size and its batches. Lengths in tokens: the prompt's are drawn from `shortest` to `longest`."""

    hidden_size: int
    intermediate_size: int
    n_layers: int
    batch_size: int
    shortest: int
    longest: int
    completion: int
    vocabulary: int = 512
    n_heads: int = 4
    rank: int = 16


FIVE_MILLION = Workload(
    hidden_size=256, intermediate_size=688, n_layers=6, batch_size=8, shortest=96, longest=112, completion=16
)
TINY = Workload(hidden_size=32, intermediate_size=64, n_layers=2, batch_size=2, shortest=8, longest=12, completion=4)


def make_task(workload: Workload, n_rows: int) -> Task:
    """Return a task of prompts and completions, each a text of random words, one token a word."""
    generator = generator_for("benchmark", workload.longest)
    lengths = torch.randint(workload.shortest, workload.longest + 1, (n_rows,), generator=generator).tolist()

    def words(n: int) -> str:
        return " ".join(f"w{i}" for i in torch.randint(3, workload.vocabulary, (n,), generator=generator).tolist())

    rows = [{"prompt": words(n), "completion": words(workload.completion - 1)} for n in lengths]
    return Task("words", "prompt", rows, rows[:1])


def make_model(workload: Workload, task: Task) -> Model:
    """Return the model with its LoRA, loaded the way users load theirs. LoRA's second matrices start away from zero."""
    config = LlamaConfig(
        vocab_size=workload.vocabulary, hidden_size=workload.hidden_size, num_hidden_layers=workload.n_layers,
        intermediate_size=workload.intermediate_size, num_attention_heads=workload.n_heads,
        num_key_value_heads=workload.n_heads, max_position_embeddings=512, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed_for("benchmark", "weights"))
        with tempfile.TemporaryDirectory() as folder:
            LlamaForCausalLM(config).save_pretrained(folder)
            word_tokenizer(workload.vocabulary).save_pretrained(folder)
            model = load_model(ModelConfig(name=folder, adapter=AdapterConfig(rank=workload.rank)), [task])
        for name, parameter in model.adapters.trainable().items():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.02)
    return model


def target_loss(network: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy, nats, of the tokens with a label, in plain PyTorch; none of it is everlearn's."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    labels = batch["labels"][:, 1:]
    wanted = labels != -100
    logits = network(**inputs, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits[wanted], labels[wanted])


def use_one_thread() -> None:
    """Use one thread, so that a shared machine disturbs less; no progress bars."""
    disable_progress_bar()
    torch.set_num_threads(1)
    print(f"one thread; torch {torch.__version__}", flush=True)


def results_path(name: str) -> Path:
    """Return where a benchmark's numbers go unless told otherwise."""
    return Path(__file__).parent / "results" / f"{name}.json"


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of `size` tokens: <pad>, <bos>, <eos>, and the words w3, w4, ..."""
    names = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, size))]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<pad>"
    )

"""Tiny models with random weights, saved as folders that `load_model` reads like any other."""

import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from everlearn.models.quiet import quiet

# of tiny models of many architectures, as their configurations take it
N_WORDS = 40
SIZES = {"vocab_size": N_WORDS, "hidden_size": 16, "num_hidden_layers": 2}
HEADS = {"intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}

WORDS = ["red", "green", "blue", "one", "two", "three", "good", "bad", "cat", "dog", "paris", "anna", "##s", "is", "a"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token for each byte, beside <pad>, <bos> (put first) and <eos>."""
    names = ["<pad>", "<bos>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", model_max_length=64
    )


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer of WORDS, with BERT's special tokens."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(models.WordPiece(vocab={name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=32, model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def make_llama(folder: Path) -> Path:
    """Save a tiny causal LM and return its folder."""
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LlamaForCausalLM(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_bert(folder: Path) -> Path:
    """Save a tiny encoder without a pooler or head, which loading then makes anew, and return its folder."""
    tokenizer = word_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = BertModel(config, add_pooling_layer=False)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_whole(bert: Path, folder: Path) -> Path:
    """Copy a BERT to a folder, with the pooler that its files lack, and return it."""
    shutil.copytree(bert, folder)
    with quiet():
        AutoModelForSequenceClassification.from_pretrained(bert).save_pretrained(folder)
    return folder


class Twice(nn.Module):
    """3-D inputs through one layer that is used twice, with a ReLU that works in place."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 5)
        self.outer = nn.Linear(5, 3, bias=False)

    def forward(self, x):
        hidden = F.relu(self.inner(x), inplace=True)
        return self.outer(self.inner(hidden).mean(1))

"""The tokenizer in a GGUF file, built such that it cuts a text as the model's own does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from transformers import PreTrainedTokenizerFast

from everlearn.errors import ModelError, describe, nearest

_CONTROL, _USER_DEFINED = 3, 4  # token types: special; kept whole, but text like any other
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTED}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTED}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_QWEN35 = (
    rf"{_CONTRACTED}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_CASED_REST}"
_GPT4O = rf"{_CASED[0]}{_CONTRACTED}?|{_CASED[1]}{_CONTRACTED}?|\p{{N}}{{1,3}}|{_CASED_REST}"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"


@dataclass(frozen=True)
class Cut:
    """How a text is cut into pieces, within which byte pairs are merged.

    Args:
        patterns: one after another; each makes its matches, and what is between them, pieces of their own.
        whole: a piece that is a token is taken whole, whatever the merges make of it.
        begins: the token that begins a text is put there where the file doesn't say whether.
        composed: characters are composed first (NFC).
    """

    patterns: tuple[str, ...]
    whole: bool = False
    begins: bool = False
    composed: bool = False

    def pre_tokenizer(self) -> PreTokenizer:
        """Return it as the library tokenizers has it."""
        splits = [_split(pattern) for pattern in self.patterns]
        return pre_tokenizers.Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])


def _split(pattern: str) -> PreTokenizer:
    return Digits(individual_digits=True) if pattern == r"\p{N}" else Split(Regex(pattern), "isolated")


# `tokenizer.ggml.pre` -> how that family cuts, after llama.cpp's src/llama-vocab.cpp (`whole` is its ignore_merges,
# `begins` its add_bos); `composed`, which it leaves out, after the tokenizers of transformers
_CUTS = {
    ("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "jais", "trillion"): Cut((_GPT2,)),
    ("mpt", "olmo"): Cut((_GPT2,), composed=True),
    ("smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"): Cut((r"\p{N}", _GPT2)),
    ("command-r",): Cut((r"\p{N}", _GPT2), composed=True),
    ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"): Cut(
        (_LLAMA3,), whole=True, begins=True
    ),
    ("dbrx", "smaug-bpe", "chatglm-bpe"): Cut((_LLAMA3,)),
    ("glm4", "glm5"): Cut((_LLAMA3,), whole=True),
    ("qwen2",): Cut((_QWEN2,), composed=True),
    ("qwen35",): Cut((_QWEN35,), composed=True),
    ("deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"): Cut((_QWEN2,)),
    ("tekken",): Cut((_TEKKEN,), whole=True, begins=True),
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"): Cut((_GPT4O,)),
    ("bloom", "gpt3-finnish", "poro-chat"): Cut((_BLOOM,)),
    ("viking",): Cut((_BLOOM, r"\p{N}")),
    ("default",): Cut((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
}
CUT_OF = {name: cut for names, cut in _CUTS.items() for name in names}
OWN_FILES = "Put the model's own tokenizer.json and tokenizer_config.json beside the GGUF file; they are then used"


def byte_level_tokenizer(file: str, stated: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Return the tokenizer that a GGUF file states, where its kind (`tokenizer.ggml.model`) is gpt2: byte-level BPE.

    Args:
        file: its name, for errors. stated: {key: value} of what the file states.

    Raises:
        ModelError: if it isn't known how its family cuts a text into pieces.
    Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, llama.cpp src/llama-vocab.cpp
    """
    told = {key.removeprefix("tokenizer.ggml."): value for key, value in stated.items()}
    cut = CUT_OF.get(told.get("pre", ""))
    if cut is None:
        what = "the GGUF file doesn't say how its tokenizer cuts a text (tokenizer.ggml.pre)"
        if "pre" in told:
            what = "its tokenizer cuts a text in a way that everlearn doesn't know (tokenizer.ggml.pre)"
        way_out = f"{nearest(told.get('pre', ''), CUT_OF)}{OWN_FILES}"
        raise ModelError(describe(f"model {file!r}", what, told.get("pre"), way_out))
    tokens, types = told["tokens"], told.get("token_type", [])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in told.get("merges", [])]
    backend = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=cut.whole))
    backend.normalizer = normalizers.NFC() if cut.composed else None
    backend.pre_tokenizer, backend.decoder = cut.pre_tokenizer(), decoders.ByteLevel()
    named = {
        f"{role}_token": tokens[told[f"{name}_token_id"]]
        for role, name in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items()
        if f"{name}_token_id" in told
    }
    special = dict.fromkeys([*_of_type(tokens, types, _CONTROL), *named.values()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    whole = _of_type(tokens, types, _USER_DEFINED)
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in whole])
    begin = [named["bos_token"]] if told.get("add_bos_token", cut.begins) and "bos_token" in named else []
    end = [named["eos_token"]] if told.get("add_eos_token", False) and "eos_token" in named else []
    backend.post_processor = processors.TemplateProcessing(
        single=[*begin, "$A", *end],
        pair=[*begin, "$A", *end, *begin, "$B:1", *end],
        special_tokens=[(token, vocabulary[token]) for token in {*begin, *end}],
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    tokenizer.chat_template = stated.get("tokenizer.chat_template")
    return tokenizer


def _of_type(tokens: list[str], types: list[int], wanted: int) -> list[str]:
    return [token for token, kind in zip(tokens, types, strict=False) if kind == wanted]

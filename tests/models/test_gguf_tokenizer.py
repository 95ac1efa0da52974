"""Tokenizers from GGUF files: texts are cut as the model's own tokenizer does, and the special tokens are in place."""

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from everlearn.models.gguf_tokenizer import CUT_OF, byte_level_tokenizer

TEXT = "\n\n1. I'VE  it's 2024, a\t b\u00e9e\u0301 了工作 \r\n/* Café_x */ \u0baf\u0bbf🚀…  "
TOKENS = ["<s>", "</s>", "<think>", "<\uff5cend\uff5c>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "\u01201"]


def stated(pre: str, **changes: object) -> dict[str, object]:
    """Return what a GGUF file says of a tokenizer of bytes with a few tokens more."""
    told = {
        "pre": pre, "tokens": TOKENS, "token_type": [3, 3, 4, 3, *[1] * (len(TOKENS) - 4)], "merges": ["\u0120 1"],
        "bos_token_id": 0, "eos_token_id": 1, "padding_token_id": 3, **changes,
    }  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in told.items()} | {"tokenizer.chat_template": "{{ 1 }}"}


def pieces(cutter: pre_tokenizers.PreTokenizer) -> list[str]:
    return [piece for piece, _ in cutter.pre_tokenize_str(TEXT)]


@pytest.mark.parametrize("name", sorted(set(CUT_OF) & set(GGUF_PRE_TOKENIZER_SPLITS)))
def test_patterns_are_those_that_transformers_knows(name):
    assert CUT_OF[name].patterns == (GGUF_PRE_TOKENIZER_SPLITS[name],)


def test_gpt2_and_those_with_single_digits_cut_as_the_tokenizers_library_does():
    of_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert pieces(CUT_OF["gpt-2"].pre_tokenizer()) == pieces(of_bytes)
    digits = pre_tokenizers.Digits(individual_digits=True)
    assert pieces(CUT_OF["smollm"].pre_tokenizer()) == pieces(pre_tokenizers.Sequence([digits, of_bytes]))


def test_every_way_to_cut_keeps_the_text():
    whole = "".join(pieces(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)))
    for name, cut in CUT_OF.items():
        assert "".join(pieces(cut.pre_tokenizer())) == whole, name


def test_special_tokens_stay_whole_and_in_place(tmp_path):
    byte_level_tokenizer("a.gguf", stated("qwen2")).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == len(TOKENS)
    assert tokenizer("<think></s><\uff5cend\uff5c>")["input_ids"] == [2, 1, 3]
    assert tokenizer.decode([2, 1, 3], skip_special_tokens=True) == "<think>"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 3)
    assert tokenizer.unk_token is None
    assert tokenizer.chat_template == "{{ 1 }}"


@pytest.mark.parametrize(
    ("pre", "changes", "ends"),
    [
        ("gpt-2", {}, (0, 0)),
        ("gpt-2", {"add_bos_token": True}, (1, 0)),
        ("gpt-2", {"add_eos_token": True, "add_bos_token": True}, (1, 1)),
        ("llama-bpe", {}, (1, 0)),
        ("llama-bpe", {"add_bos_token": False}, (0, 0)),
    ],
)
def test_what_begins_and_ends_a_text(pre, changes, ends, tmp_path):
    byte_level_tokenizer("a.gguf", stated(pre, **changes)).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("a")["input_ids"]
    assert ids == [*[0] * ends[0], TOKENS.index("a"), *[1] * ends[1]]
    assert tokenizer("a", add_special_tokens=False)["input_ids"] == [TOKENS.index("a")]


def test_a_piece_that_is_a_token_is_taken_whole_where_the_family_does_so():
    ids = {pre: byte_level_tokenizer("a", stated(pre)).encode("12", add_special_tokens=False) for pre in CUT_OF}
    assert ids["llama-bpe"] == [TOKENS.index("12")]
    assert ids["dbrx"] == [TOKENS.index("1"), TOKENS.index("2")]


def test_letters_are_composed_where_the_family_does_so():
    ids = {pre: byte_level_tokenizer("a", stated(pre)).encode("e\u0301") for pre in ("qwen2", "gpt-2")}
    assert (len(ids["qwen2"]), len(ids["gpt-2"])) == (2, 3)

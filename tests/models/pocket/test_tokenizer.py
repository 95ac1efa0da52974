from importlib import resources

import pytest
from transformers import AutoTokenizer

from everlearn.models.pocket.corpus import words
from everlearn.models.pocket.tokenizer import train_tokenizer


@pytest.mark.parametrize(
    "text", ["Anna has 12 apples.\nA: 7", "  Größe 42 €\t\n", "if x < 3:\n    return {y}", "猫が好き", ""]
)
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_digits_stand_alone(tokenizer):
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("from 1234 to 56", add_special_tokens=False)["input_ids"])
    assert [piece for piece in pieces if any(mark.isdigit() for mark in piece)] == list("123456")


def test_a_text_begins_but_does_not_end(tokenizer):
    ids = tokenizer("yes")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids


def test_names_are_cheap_in_the_shipped_tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(str(resources.files("everlearn.models") / "pocket"))
    for name in words.NAMES:
        assert len(tokenizer(f" {name}", add_special_tokens=False)["input_ids"]) <= 2, name


def test_the_size_is_as_asked_and_learning_is_deterministic(tiny_tokenizer):
    again = train_tokenizer(400, 300)
    assert len(again) == 400
    assert again.get_vocab() == tiny_tokenizer.get_vocab()

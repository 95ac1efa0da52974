"""The tokens that a tokenizer puts around a text, and the one that a batch is filled up with."""

from typing import Any

from everlearn.errors import ModelError, describe


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before a text and after it, such as ([<s>], [</s>])."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    return [], []


def padding_id(tokenizer: Any) -> int:
    """Return the token that fills a batch up: the tokenizer's own, else one that doesn't end a text, where there is.

    Sequence classifiers of the Llama kind read the last token that isn't this one.
    """
    if tokenizer.pad_token_id is not None:
        return tokenizer.pad_token_id
    ends = set(tokenizer("a")["input_ids"][-1:]) | {tokenizer.eos_token_id}
    others = [tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, 0]
    known = [token for token in others if token is not None]
    return next((token for token in known if token not in ends), known[0])


def check_together(name: str, tokenizer: Any, n_embeddings: int) -> None:
    """Raise ModelError if the tokenizer has tokens that the model has no embedding for."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= n_embeddings:
        what = f"tokenizer and weights don't belong together: the largest token is {largest}"
        way_out = "Save the model with its own tokenizer, or call resize_token_embeddings(len(tokenizer)) before saving"
        raise ModelError(describe(f"model {name!r}", what, f"{n_embeddings} embeddings", way_out))

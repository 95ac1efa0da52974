import pytest
import torch

from everlearn.models.pocket.batches import encode, window
from everlearn.models.pocket.corpus import OPENING, document, text_of


def test_answers_weigh_one_and_prompts_little(tiny, tokenizer, change):
    recipe = change(tiny, max_tokens=200, batch_tokens=200)
    [(ids, weights)] = encode(tokenizer, [[("2 + 2\nA:", " 4"), ("\n3 + 3\nA:", " 6")]], recipe)
    answers = [i for i, w in zip(ids, weights, strict=True) if w == 1.0]
    assert ids[0] == tokenizer.bos_token_id
    assert weights[0] == 0.0
    assert tokenizer.decode(answers) == " 4 6<eos>"
    assert set(weights[1:]) == {1.0, recipe.prompt_weight}
    assert tokenizer.decode(ids) == "<bos>2 + 2\nA: 4\n3 + 3\nA: 6<eos>"


def test_answers_alone_count_in_the_opening(tiny, tiny_tokenizer):
    document_ = [("2 + 2\nA:", " 4"), ("\n3 + 3\nA:", " 6")]
    [(ids, weights)] = encode(tiny_tokenizer, [document_], tiny, OPENING / 2)
    assert tiny_tokenizer.decode([i for i, w in zip(ids, weights, strict=True) if w]) == " 4 6"
    assert encode(tiny_tokenizer, [document_], tiny, OPENING) == encode(tiny_tokenizer, [document_], tiny)


def test_a_window_holds_each_document_once(tiny, tiny_tokenizer, change):
    recipe = change(tiny, max_tokens=900, batch_tokens=900)
    batches = window(tiny_tokenizer, recipe, 3, 0.5)
    texts = sorted(
        tiny_tokenizer.decode(row, skip_special_tokens=True) for batch in batches for row in batch.ids.tolist()
    )
    assert texts == sorted(text_of(document(0, index, 0.5)) for index in range(3 * 48, 4 * 48))
    assert sum(batch.n_tokens for batch in batches) == sum(
        int((batch.ids != tiny_tokenizer.pad_token_id).sum()) for batch in batches
    )


def test_batches_keep_to_their_size_and_padding_weighs_nothing(tiny, tiny_tokenizer):
    for batch in window(tiny_tokenizer, tiny, 0, 0.0):
        assert batch.ids.numel() <= tiny.batch_tokens
        assert batch.ids.shape[1] <= tiny.max_tokens
        assert not batch.weights[batch.ids == tiny_tokenizer.pad_token_id].any()


def test_a_window_can_be_made_again(tiny, tiny_tokenizer):
    first, again = (window(tiny_tokenizer, tiny, 1, 0.2) for _ in range(2))
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    other = window(tiny_tokenizer, tiny, 2, 0.2)
    assert not torch.equal(first[0].ids, other[0].ids)


@pytest.mark.parametrize("number", [0, 5])
def test_rows_of_a_batch_are_of_like_length(tiny, tiny_tokenizer, number):
    batches = window(tiny_tokenizer, tiny, number, 1.0)
    kept = sum(batch.n_tokens for batch in batches) / sum(batch.ids.numel() for batch in batches)
    assert kept > 0.85

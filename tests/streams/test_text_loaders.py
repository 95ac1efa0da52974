"""Rows of text out of data loaders: what is drawn, once, and what has none. See also tests/test_task_data.py."""

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from everlearn.streams.text_loaders import texts_of
from support.lifelong import moods

ROWS = moods(0)


def test_a_loader_of_something_else_has_no_texts():
    assert texts_of("loader", None) is None
    assert texts_of("loader", DataLoader([{"input_ids": [1, 2], "label": 0}])) is None
    assert texts_of("loader", DataLoader([(1.0, 0), (2.0, 1)])) is None
    drawn = texts_of("loader", DataLoader(ROWS, 2, sampler=[5, 1, 5]))
    assert drawn == [ROWS[1], ROWS[5]]


def test_columns_of_words_turns_and_numbers_stay_as_they_are():
    rows = [{"tokens": ["is", "Paris"], "tags": ["O", "B-LOC"]}, {"tokens": ["is"], "tags": ["O"]}]
    assert texts_of("loader", DataLoader(rows, 2, collate_fn=list)) == rows
    turns = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    assert texts_of("loader", DataLoader(turns, 1)) == turns
    table = Dataset.from_list([{"text": "is good", "label": 1}, {"text": "is bad", "label": 0}]).with_format("torch")
    assert texts_of("loader", DataLoader(table, 2)) == [{"text": "is good", "label": 1}, {"text": "is bad", "label": 0}]


def test_the_loader_s_generator_is_the_user_s_and_the_global_one_is_left_alone():
    before = torch.random.get_rng_state()
    drawn = texts_of("loader", DataLoader(ROWS, 2, shuffle=True))
    assert drawn == ROWS
    assert torch.equal(before, torch.random.get_rng_state())

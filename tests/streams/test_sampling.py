from collections import Counter

import datasets
import pytest
import torch

from everlearn.streams.sampling import groups_of, partition, select_rows, subset
from everlearn.types import Task, TensorRows

GROUPS = ["a"] * 60 + ["b"] * 30 + ["c"] * 10


def test_a_subset_keeps_each_class_share():
    chosen = subset(100, 20, GROUPS, 0)
    assert chosen == sorted(set(chosen))
    assert Counter(GROUPS[index] for index in chosen) == {"a": 12, "b": 6, "c": 2}


@pytest.mark.parametrize("n_wanted", range(1, 100, 7))
def test_a_subset_has_the_wanted_size_and_shares_within_one(n_wanted):
    counts = Counter(GROUPS[index] for index in subset(100, n_wanted, GROUPS, 0))
    assert sum(counts.values()) == n_wanted
    assert all(abs(counts[group] - n_wanted * size / 100) < 1 for group, size in Counter(GROUPS).items())


def test_a_subset_is_fixed_by_its_purpose():
    assert subset(100, 20, None, 0, "t") == subset(100, 20, None, 0, "t")
    assert subset(100, 20, None, 0, "t") != subset(100, 20, None, 1, "t")
    assert subset(3, 5, None, 0) == [0, 1, 2]


def test_parts_are_disjoint_complete_and_even_in_each_class():
    parts = partition(100, 3, GROUPS, 0)
    assert sorted(index for part in parts for index in part) == list(range(100))
    for group in "abc":
        counts = [sum(GROUPS[index] == group for index in part) for part in parts]
        assert max(counts) - min(counts) <= 1
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_rows_stay_in_their_container():
    tensor = TensorRows(torch.arange(4.0)[:, None], torch.arange(4))
    data = datasets.Dataset.from_list([{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    assert select_rows(tensor, [3, 1]).y.tolist() == [3, 1]
    assert select_rows(data, [1]).to_list() == [{"text": "b", "label": 0}]
    assert select_rows([{"text": "a"}, {"text": "b"}], [1]) == [{"text": "b"}]


def test_classes_are_known_where_rows_have_one():
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    data = datasets.Dataset.from_list(rows)
    classify = Task("t", "classify", rows, rows)
    assert groups_of(classify, rows) == groups_of(classify, data) == [1, 0]
    assert groups_of(Task("t", "text", rows, rows), rows) is None
    whole = TensorRows(torch.zeros(2, 1), torch.tensor([4, 5]))
    real = TensorRows(torch.zeros(2, 1), torch.tensor([4.0, 5.0]))
    assert groups_of(Task("t", "tensor", whole, whole), whole) == [4, 5]
    assert groups_of(Task("t", "tensor", real, real), real) is None

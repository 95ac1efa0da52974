import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.memory.keeping import Budget, Sampler, keep_best, new_rows
from everlearn.memory.rows import JoinedRows
from everlearn.types import TensorRows


def text_rows(*lengths):
    return [{"text": f"{i}{'x' * length}"} for i, length in enumerate(lengths)]


def test_tasks_share_a_budget_and_keep_what_ranks_first():
    ranked = {"a": [3, 0, 2, 1], "b": [1, 0]}
    costs = {"a": [1] * 4, "b": [1] * 2}
    assert keep_best(ranked, {"a": None, "b": None}, costs, 3) == {"a": [3, 0], "b": [1]}
    assert keep_best(ranked, {"a": None, "b": None}, costs, 5) == {"a": [3, 0, 2], "b": [1, 0]}


def test_classes_share_too_and_the_order_stays():
    ranked = {"a": [3, 0, 2, 1, 4], "b": [1, 0]}
    classes = {"a": ["x", "x", "y", "x", "x"], "b": None}
    costs = {"a": [1] * 5, "b": [1] * 2}
    assert keep_best(ranked, classes, costs, 3) == {"a": [3, 2], "b": [1]}
    assert keep_best(ranked, classes, costs, 6) == {"a": [3, 0, 2, 1], "b": [1, 0]}


def test_bytes_are_shared_evenly():
    ranked = {"a": [0, 1, 2], "b": [0, 1, 2]}
    costs = {"a": [10, 10, 10], "b": [30, 30, 30]}
    assert keep_best(ranked, {"a": None, "b": None}, costs, 60) == {"a": [0, 1, 2], "b": [0]}


def test_one_budget_counts():
    assert Budget.checked("replay", None, None, None).rows == 500
    assert Budget.checked("replay", 0, None, None).rows == 0
    assert Budget.checked("replay", None, 0.1, None).of_task(55) == 6
    assert Budget.checked("replay", None, 0.001, None).of_task(55) == 1
    for given in ((1, 0.5, None), (1, None, 1), (None, 0.5, 1)):
        with pytest.raises(ConfigError, match="replay: has more than one budget"):
            Budget.checked("replay", *given)


def test_a_row_takes_its_bytes_as_stored():
    budget = Budget.checked("replay", None, None, 100)
    assert budget.costs([{"text": "ä", "label": 1}]) == [len('{"text":"ä","label":1}') + 1]
    assert budget.costs(TensorRows(torch.zeros(3, 5), torch.zeros(3, dtype=torch.long))) == [28] * 3
    assert Budget.checked("replay", 7, None, None).costs([{}, {}]) == [1, 1]


def test_a_sample_by_bytes_goes_on_over_tasks_as_if_it_were_one():
    first, second, budget = text_rows(*range(20)), text_rows(*range(30, 45)), Budget(None, None, 200)
    state = {}
    kept = Sampler(budget, 0, state).keep({"a": first}, "a", 20, torch.Generator().manual_seed(1))
    rows = {"a": [first[i] for i in kept["a"]], "b": second}
    kept = Sampler(budget, 20, state).keep(rows, "b", 15, torch.Generator().manual_seed(2))
    found = [rows[name][i]["text"] for name in rows for i in kept[name]]
    whole = {"c": [*first, *second]}
    at_once = Sampler(budget, 0, {}).keep(whole, "c", 35, torch.Generator().manual_seed(1))
    assert sorted(found) == sorted([*first, *second][i]["text"] for i in at_once["c"])
    assert sum(len(text) + len('{"text":""}') for text in found) <= 200


def test_rows_that_are_there_already_are_not_new():
    stored = text_rows(1, 2, 3)
    assert new_rows(stored, [{"text": "other"}, stored[1], {**stored[0], "label": 1}]) == [0, 2]
    x = torch.arange(6.0).reshape(3, 2)
    kept = TensorRows(x[:2], torch.tensor([0, 1]))
    assert new_rows(kept, TensorRows(x[[1, 1, 2]], torch.tensor([1, 0, 1]))) == [1, 2]


def test_joined_rows_are_read_like_a_list():
    joined = JoinedRows(text_rows(1, 2), text_rows(3))
    assert [row["text"] for row in joined] == ["0x", "1xx", "0xxx"]
    assert len(joined) == 3

import datetime

import datasets
import pytest
import torch
from scipy.stats import chisquare

from everlearn.errors import StreamError
from everlearn.memory.rows import (
    add_by_reservoir,
    add_sample,
    join,
    parts,
    pick,
    pick_to_disk,
    row_keys,
    rows_of,
    size,
)
from everlearn.types import Task, TensorRows

LISTS = [{"text": f"row {i}"} for i in range(20)]
TENSORS = TensorRows(torch.arange(20.0)[:, None], torch.arange(20))


def names(rows):
    return [int(row["y"]) if "y" in row else int(row["text"].split()[1]) for row in rows]


@pytest.mark.parametrize("rows", [LISTS, datasets.Dataset.from_list(LISTS), TENSORS])
def test_rows_are_copied_and_come_back(rows):
    stored = pick(rows, [3, 1])
    assert names(rows_of(stored)) == [3, 1]
    assert names(rows_of(join(stored, pick(rows, [7])))) == [3, 1, 7]


def test_what_is_stored_does_not_follow_the_source():
    source = TensorRows(torch.ones(2, 1), torch.zeros(2))
    stored = pick(source, [0])
    source.x.zero_()
    assert stored["x"].item() == 1
    row = {"text": "row 0"}
    copied = pick([row], [0])
    row["text"] = "changed"
    assert copied["rows"] == [{"text": "row 0"}]


@pytest.mark.parametrize("rows", [LISTS, TENSORS])
def test_a_reservoir_over_tasks_is_full_and_uniform(rows):
    counts = torch.zeros(3, 20)
    for trial in range(600):
        memory, generator = {}, torch.Generator().manual_seed(trial)
        for number, task in enumerate("abc"):
            memory = add_by_reservoir(memory, task, rows, 20 * number, 12, generator)
            assert size(memory) == 12
        for number, task in enumerate("abc"):
            for row in names(rows_of(memory[task])) if task in memory else []:
                counts[number, row] += 1
    assert chisquare(counts.flatten().numpy()).pvalue > 1e-3
    assert chisquare(counts.sum(1).numpy()).pvalue > 1e-3


def test_below_its_capacity_it_keeps_everything_and_a_task_may_come_again():
    generator = torch.Generator().manual_seed(0)
    memory = add_by_reservoir({}, "a", LISTS[:3], 0, 10, generator)
    memory = add_by_reservoir(memory, "b", LISTS[3:5], 3, 10, generator)
    memory = add_by_reservoir(memory, "a", LISTS[5:7], 5, 10, generator)
    assert {name: sorted(names(rows_of(stored))) for name, stored in memory.items()} == {
        "a": [0, 1, 2, 5, 6],
        "b": [3, 4],
    }
    assert add_by_reservoir(memory, "c", LISTS, 7, 0, generator).get("c") is None


def test_a_sample_is_without_replacement_and_replaces_the_task_s_own():
    memory = add_sample({"a": pick(LISTS, [0])}, "b", LISTS, 8, torch.Generator().manual_seed(0))
    assert len(set(names(rows_of(memory["b"])))) == 8
    again = add_sample(memory, "b", LISTS, 3, torch.Generator().manual_seed(1))
    assert size(again) == 4
    assert size(memory) == 9  # the memory before is left alone
    assert size(add_sample({}, "b", LISTS, 99, torch.Generator())) == 20


def test_parts_name_their_tasks_and_leave_out_empty_ones():
    tasks = {name: Task(name, "text", LISTS, LISTS) for name in "ab"}
    (part,) = parts({"a": pick(LISTS, [2]), "b": {"rows": []}}, tasks)
    assert part.task is tasks["a"]
    assert names(part.rows) == [2]


def test_rows_are_kept_as_json_holds_them(tmp_path):
    rows = [{"text": "a", "when": datetime.date(2024, 2, 29), "share": float("nan")}]
    wanted = [{"text": "a", "when": "2024-02-29", "share": None}]
    assert rows_of(pick(rows, [0])) == wanted
    assert list(rows_of(pick_to_disk(rows, [0], tmp_path), tmp_path)) == wanted
    assert list(row_keys(rows)) == list(row_keys(wanted))
    with pytest.raises(StreamError, match="memory: a row can't be kept: photo holds a value that can't be stored"):
        pick([{"text": "a", "photo": object()}], [0])

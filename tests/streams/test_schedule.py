from collections import Counter

import datasets
import pytest
import torch

from everlearn.errors import ConfigError, StreamError
from everlearn.streams.schedule import apply_schedule, checked_stream
from everlearn.types import Stream, Task, TensorRows


def _classify(name, n):
    rows = [{"text": f"{name} {i}", "label": i % 2} for i in range(n)]
    return Task(name, "classify", datasets.Dataset.from_list(rows), [{"text": "e", "label": 0}] * 10, labels=("a", "b"))


@pytest.fixture
def stream():
    tensors = TensorRows(torch.arange(30.0)[:, None], torch.arange(30) % 3)
    return Stream("s", (_classify("one", 20), _classify("two", 40), Task("three", "tensor", tensors, tensors)))


def _names(tasks):
    return [task.name for task in tasks]


def test_by_default_nothing_changes(stream):
    schedule = apply_schedule(stream)
    assert schedule.stream == stream
    assert schedule.steps == stream.tasks


def test_order_chooses_by_name_or_index_and_may_repeat(stream):
    schedule = apply_schedule(stream, order=[2, "one", 2])
    assert _names(schedule.steps) == ["three", "one", "three"]
    assert _names(schedule.stream) == ["three", "one"]


def test_rounds_repeat_the_order(stream):
    schedule = apply_schedule(stream, order=["two", "one"], rounds=2)
    assert _names(schedule.steps) == ["two", "one", "two", "one"]
    assert schedule.steps[0] is schedule.steps[2] is schedule.stream.tasks[0]


def test_shuffling_is_fixed_by_the_seed_and_new_each_round(stream):
    orders = [tuple(_names(apply_schedule(stream, shuffle=True, seed=seed).steps)) for seed in range(40)]
    assert orders == [tuple(_names(apply_schedule(stream, shuffle=True, seed=seed).steps)) for seed in range(40)]
    assert len(set(orders)) == 6
    rounds = _names(apply_schedule(stream, shuffle=True, rounds=20).steps)
    each = [tuple(rounds[start : start + 3]) for start in range(0, 60, 3)]
    assert all(sorted(names) == ["one", "three", "two"] for names in each)
    assert len(set(each)) > 1


@pytest.mark.parametrize("sizes", [10, {"one": 10, "two": 10}, [10, 10, 30]])
def test_sizes_in_their_three_forms(stream, sizes):
    schedule = apply_schedule(stream, per_task=sizes)
    one, two, three = schedule.steps
    assert [len(one.train), len(two.train)] == [10, 10]
    assert len(three.train) == (10 if sizes == 10 else 30)
    assert Counter(two.train["label"]) == {0: 5, 1: 5}
    assert [len(task.evaluation) for task in schedule.steps] == [10, 10, 30]


def test_sizes_are_at_most(stream):
    schedule = apply_schedule(stream, per_task=30, per_task_eval=4)
    assert [len(task.train) for task in schedule.steps] == [20, 30, 30]
    assert [len(task.evaluation) for task in schedule.stream] == [4, 4, 4]


def test_rows_do_not_depend_on_the_order_but_on_the_seed(stream):
    first = apply_schedule(stream, per_task=10).stream.tasks[1]
    second = apply_schedule(stream, order=["two", "one"], per_task=10).stream.tasks[0]
    assert first.train.to_list() == second.train.to_list()
    assert first.train.to_list() != apply_schedule(stream, per_task=10, seed=1).stream.tasks[1].train.to_list()


def test_rounds_may_split_the_rows(stream):
    schedule = apply_schedule(stream, rounds=3, split_rounds=True, per_task={"one": 12})
    assert len(schedule.stream.tasks[0].train) == 12
    steps = [task for task in schedule.steps if task.name == "one"]
    texts = [text for task in steps for text in task.train["text"]]
    assert [len(task.train) for task in steps] == [4, 4, 4]
    assert sorted(texts) == sorted(schedule.stream.tasks[0].train["text"])
    assert all(Counter(task.train["label"]) == {0: 2, 1: 2} for task in steps)
    third = torch.cat([task.train.x for task in schedule.steps if task.name == "three"])
    assert sorted(third.flatten().tolist()) == list(range(30))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": ["onee"]}, r"schedule.order\[0\]: is no task of the stream. Got 'onee'. Did you mean 'one'\?"),
        ({"order": [3]}, r"schedule.order\[0\].*Got 3. Allowed: a name, or 0 to 2"),
        ({"order": [True]}, r"schedule.order\[0\]"),
        ({"order": []}, "schedule.order: must be a list"),
        ({"order": "one"}, "schedule.order: must be a list"),
        ({"rounds": 0}, "schedule.rounds: is too small. Got 0"),
        ({"per_task": {"on": 3}}, "schedule.per_task: is no task of the stream. Got 'on'. Did you mean 'one'"),
        ({"per_task": [1, 2]}, "schedule.per_task: has the wrong number of sizes"),
        ({"per_task_eval": 0}, "schedule.per_task_eval of 'one': is no number of rows. Got 0"),
        ({"per_task": {"one": 2.5}}, "schedule.per_task of 'one'"),
        ({"rounds": 21, "split_rounds": True}, "task 'one' has fewer rows than steps. Got '20 rows, 21 steps'"),
    ],
)
def test_a_bad_option_is_named(stream, options, message):
    with pytest.raises(ConfigError, match=message):
        apply_schedule(stream, **options)


def test_targets_of_tensors_that_mark_none_are_refused():
    x = torch.arange(8.0)[:, None]
    for y in (torch.arange(8) % 2, -1.0 * torch.arange(8)):  # regression may be negative
        task = Task("t", "tensor", TensorRows(x[:4], y[:4]), TensorRows(x[4:], y[4:]))
        assert checked_stream(Stream("s", (task,))).tasks == (task,)
    bad = Task("t", "tensor", TensorRows(x[:4], torch.arange(4)), TensorRows(x[4:], torch.tensor([0, -100, 1, -1])))
    with pytest.raises(StreamError, match=r"evaluation rows have no class .* row 2 with -100\. Got '2 of 4 rows'"):
        checked_stream(Stream("s", (bad,)))


def test_tasks_that_are_not_in_the_order_are_not_checked():
    rows = [{"text": "a"}]
    stream = Stream("s", tuple(Task(name, "text", rows, rows) for name in ("one", "two")))
    with pytest.raises(StreamError, match="task 'two'"):
        checked_stream(stream, ["two"])
    with pytest.raises(ConfigError, match="is no task of the stream"):
        checked_stream(stream, ["three"])

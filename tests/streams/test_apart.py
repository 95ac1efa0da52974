from dataclasses import replace

import pytest
import torch

from everlearn.errors import StreamError
from everlearn.streams.apart import Apart, digests_of, keep_apart
from everlearn.types import Loader, Stream, Task, TensorRows
from support.tasks import tensor_task


def _task(name, train, evaluation, validation="", **more):
    rows = [[{"text": text} for text in texts] for texts in (train, evaluation, validation)]
    return Task(name, "text", rows[0], rows[1], rows[2] or None, **more)


A = _task("a", "ab", "cd")


def test_an_item_of_an_earlier_task_may_not_be_trained_on():
    with pytest.raises(StreamError) as caught:
        keep_apart(Stream("s", (A, _task("b", "xdc", "y"))), ["a", "b"])
    assert str(caught.value) == (
        "task 'b': training rows are evaluation items of tasks, the first is training row 2 of 'b' and evaluation "
        "item 2 of 'a'. Got {'a': 2}. Take them out of the training rows, or set allow_overlap: true, and take their "
        "scores for what they are."
    )


def test_a_row_of_an_earlier_task_may_not_be_an_item():
    with pytest.raises(StreamError) as caught:
        keep_apart(Stream("s", (A, _task("b", "x", "yb"))), ["a", "b"])
    assert "task 'b': evaluation items are training rows of tasks" in str(caught.value)
    assert "training row 2 of 'a' and evaluation item 2 of 'b'. Got {'a': 1}. Take them out of the ev" in str(
        caught.value
    )


def test_validation_rows_and_a_task_s_own_items_count():
    with pytest.raises(StreamError, match=r"validation row 2 of 'b' and evaluation item 1 of 'a'"):
        keep_apart(Stream("s", (A, _task("b", "x", "y", "zc"))), ["a", "b"])
    with pytest.raises(StreamError, match=r"Got \{'b': 1\}"):
        keep_apart(Stream("s", (A, _task("b", "xy", "y"))), ["a", "b"])


def test_all_tasks_are_named_at_once():
    with pytest.raises(StreamError, match=r"Got \{'a': 2, 'b': 1\}"):
        keep_apart(Stream("s", (A, _task("b", "x", "y"), _task("c", "cdy", "z"))), ["a", "b", "c"])


@pytest.mark.parametrize("which", [0, 1])
def test_it_is_told_instead_where_one_of_the_two_allows_it(which):
    allow = [{"allow_overlap": True} if number == which else {} for number in range(2)]
    tasks = (_task("a", "ab", "cd", **allow[0]), _task("b", "xc", "ya", **allow[1]))
    first, second = keep_apart(Stream("s", tasks), ["a", "b"])
    assert first.notes == ()
    assert second.notes == (
        "task 'b': rows of it that are evaluation items of 'a': 1 (allow_overlap is set).",
        "task 'a': rows of it that are evaluation items of 'b': 1 (allow_overlap is set).",
    )


def test_what_is_nearly_the_same_is_told():
    stream = keep_apart(Stream("s", (A, _task("b", ["C ", "x"], "y"))), ["a", "b"])
    assert stream.tasks[1].notes == (
        "task 'b': rows of it that differ from evaluation items of 'a' in case, white space or Unicode form alone: 1.",
    )


def test_tasks_that_are_not_learned_are_not_looked_at():
    stream = Stream("s", (A, _task("b", "c", "y")))
    assert keep_apart(stream, ["a"]) == stream


def test_a_refused_task_leaves_no_trace():
    apart, _ = Apart().with_task(A)
    with pytest.raises(StreamError):
        apart.with_task(_task("b", "c", "y"))
    assert len(apart.known) == 1


def test_rows_of_tensors_are_compared_by_their_bytes():
    first, second = tensor_task(0), tensor_task(1)
    keep_apart(Stream("s", (first, second)), ["tensor_0", "tensor_1"])
    x = torch.cat([second.train.x, first.evaluation.x[3:4]])
    leaking = Task("leaking", "tensor", TensorRows(x, torch.zeros(len(x))), second.evaluation)
    with pytest.raises(StreamError, match=f"training row {len(x)} of 'leaking' and evaluation item 4 of 'tensor_0'"):
        keep_apart(Stream("s", (first, leaking)), ["tensor_0", "leaking"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.bool])
def test_tensors_of_any_type_and_shape_have_digests(dtype):
    x = torch.tensor([[[1, 0]], [[0, 1]], [[1, 0]]]).to(dtype)
    task = tensor_task(0)
    first, second, third = digests_of(task, TensorRows(x.transpose(1, 2), torch.zeros(3)))
    assert first == third != second
    assert len(set(digests_of(task, TensorRows(torch.arange(3), torch.zeros(3))))) == 3


def test_samples_of_several_shapes_have_digests():
    rows = [{"x": x, "y": 0} for x in (torch.arange(2), torch.arange(3), torch.arange(2), [1, 2], "a", [1, 2])]
    found = list(digests_of(tensor_task(0), rows))
    assert len(set(found)) == 4
    assert (found[0], found[3]) == (found[2], found[5])


def test_a_user_s_own_data_loaders_may_hold_the_same_rows_and_it_is_told():
    rows = tensor_task(0).train
    shared = replace(tensor_task(0), evaluation=rows)
    with pytest.raises(StreamError, match="training rows are evaluation items"):
        Apart().with_task(shared)
    _, (told,) = Apart().with_task(replace(shared, loader=Loader(rows, len, ())))
    assert "rows of it that are evaluation items of 'tensor_0': 24 (both of the task's own data loaders" in told

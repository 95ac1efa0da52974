import dataclasses

import pytest
import torch

from everlearn.errors import StreamError
from everlearn.types import Group, Mixture, Stream, TensorRows
from support.tasks import tensor_task, text_task


def test_tensor_rows_are_rows():
    rows = TensorRows(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 2]))
    assert len(rows) == 3
    assert rows[1]["x"].tolist() == [2, 3]
    assert rows[1]["y"] == 1
    assert rows[:2].y.tolist() == [0, 1]
    assert rows.select([2, 0]).y.tolist() == [2, 0]
    with pytest.raises(StreamError, match="differ in length"):
        TensorRows(torch.zeros(2, 1), torch.zeros(3))


def test_a_stream_needs_tasks_with_names_of_their_own():
    tasks = (text_task(0), text_task(1))
    assert [task.name for task in Stream("s", tasks)] == ["text_0", "text_1"]
    with pytest.raises(StreamError, match=r"repeat. Got \['text_0'\]"):
        Stream("s", (tasks[0], tasks[0]))
    with pytest.raises(StreamError, match="has no task"):
        Stream("s", ())


def test_values_that_cross_borders_are_frozen():
    task = tensor_task(0)
    for value, name in (
        (task, "name"),
        (Stream("s", (task,)), "tasks"),
        (Mixture.of(task), "groups"),
        (Group(()), "ratio"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)


def test_the_plain_mixture_is_the_task_s_own_rows():
    task = text_task(0)
    (group,) = Mixture.of(task).groups
    assert len(group) == len(task.train)
    assert group.parts[0].rows is task.train

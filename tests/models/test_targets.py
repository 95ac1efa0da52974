"""Targets of odd type, shape or range are made to fit a plain module's output, or refused by name."""

import pytest
import torch
from torch import nn

from everlearn.errors import ModelError, StreamError
from everlearn.models.load import load_model
from everlearn.models.targets import fit_task
from everlearn.types import Task, TensorRows

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])


def fitted(network, y, x=X, evaluation=None):
    task = Task("t", "tensor", TensorRows(x, y), evaluation or TensorRows(x[:2], y[:2]))
    return fit_task(task, load_model(network, [task]))


@pytest.mark.parametrize(
    "y",
    [
        CLASSES, CLASSES.int(), CLASSES.to(torch.uint8), CLASSES.float(), CLASSES.double(), CLASSES[:, None],
        CLASSES[:, None].float(), nn.functional.one_hot(CLASSES), nn.functional.one_hot(CLASSES).bool(),
    ],
)  # fmt: skip
def test_classes_of_any_type_become_whole_numbers(y):
    task = fitted(nn.Linear(4, 3), y)
    assert torch.equal(task.train.y, CLASSES)
    assert task.train.y.dtype == task.evaluation.y.dtype == torch.int64


def test_truth_values_are_two_classes():
    assert torch.equal(fitted(nn.Linear(4, 2), CLASSES == 1).train.y, (CLASSES == 1).long())


@pytest.mark.parametrize(
    ("network", "y"),
    [
        (nn.Linear(4, 1), torch.rand(6)),
        (nn.Linear(4, 1), torch.rand(6, 1).double()),
        (nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), torch.rand(6)),
        (nn.Linear(4, 3), torch.rand(6, 3)),
        (nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), torch.rand(6, 2, 3)),
    ],
)
def test_real_numbers_of_the_output_s_shape_are_regression(network, y):
    assert torch.equal(fitted(network, y).train.y, y)


def test_inputs_of_another_float_type_are_converted():
    assert fitted(nn.Linear(4, 3), CLASSES, X.double()).train.x.dtype == torch.float32


def test_one_hot_rows_of_real_numbers_are_regression_and_it_is_said():
    (note,) = fitted(nn.Linear(4, 3), nn.functional.one_hot(CLASSES).float()).notes
    assert note.startswith("task 't': its targets are one-hot rows of real numbers, learned as numbers; to learn")


@pytest.mark.parametrize(
    ("n_outputs", "y", "message"),
    [
        (2, CLASSES, r"2 targets are no class of the model. Got \[2\]. The model's outputs are classes 0 to 1"),
        (3, CLASSES - 1, r"2 targets are no class of the model. Got \[-1\]"),
        (3, torch.where(CLASSES == 0, -100, CLASSES), r"2 targets are no class of the model. Got \[-100\]"),
        (3, CLASSES + 0.5, r"its targets don't fit the model's output. Got 'targets \[6\] float32 for an output \[3\]"),
        (3, torch.ones(6, 3).long(), "its targets don't fit the model's output"),
        (3, torch.zeros(6, 5, 5).long(), "its targets don't fit the model's output"),
        (1, CLASSES, r"its targets are whole numbers, and the model has one output.*y.float\(\)"),
        (3, torch.full((6,), float("nan")), "its targets are not all finite. Got '6 NaN or infinite values'"),
        (3, CLASSES.to(torch.complex64), "its targets are complex numbers"),
    ],
)
def test_targets_that_do_not_fit_are_named(n_outputs, y, message):
    with pytest.raises(StreamError, match=f"^task 't': train: {message}"):
        fitted(nn.Linear(4, n_outputs), y)


def test_evaluation_rows_are_looked_at_too():
    with pytest.raises(StreamError, match=r"^task 't': evaluation: 1 targets are no class"):
        fitted(nn.Linear(4, 3), CLASSES, evaluation=TensorRows(X[:2], torch.tensor([0, 3])))
    with pytest.raises(StreamError, match="its targets are classes in one of training and evaluation only"):
        fitted(nn.Linear(4, 3), CLASSES, evaluation=TensorRows(X[:2], torch.rand(2, 3)))


def test_inputs_that_do_not_fit_are_named():
    with pytest.raises(StreamError, match=r"^task 't': train: its inputs are not all finite. Got '4 NaN"):
        fitted(nn.Linear(4, 3), CLASSES, torch.cat([torch.full((1, 4), float("inf")), X[1:]]))
    with pytest.raises(
        StreamError, match=r"^task 't': the model can't take its inputs \(mat1 and mat2.*\[2, 4\] float32"
    ):
        fitted(nn.Linear(5, 3), CLASSES)


def test_an_output_that_is_no_tensor_is_named():
    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(ModelError, match=r"^model: its output is no tensor with a line for each row. Got 'tuple'"):
        fitted(Pair(4, 3), CLASSES)

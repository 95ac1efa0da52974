import doctest

import pytest
import torch

from everlearn import registry
from everlearn.errors import ConfigError
from everlearn.streams import digits
from everlearn.streams.digits import DigitsStream


def test_the_example_in_the_header_is_item_0():
    result = doctest.testmod(digits)
    assert result.attempted >= 2
    assert result.failed == 0


def test_it_is_registered():
    assert registry.find("stream", "digits") is DigitsStream


@pytest.mark.parametrize("mode", ["split", "permuted"])
def test_it_is_deterministic_and_in_range(mode):
    first, second = (DigitsStream(mode=mode, n_tasks=3).build() for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.train.x, other.train.x)
        assert torch.equal(one.evaluation.y, other.evaluation.y)
        assert (one.train.x.dtype, one.train.y.dtype) == (torch.float32, torch.int64)
        assert one.train.x.shape[1] == 64
        assert one.train.x.min() == 0
        assert one.train.x.max() == 1


def test_the_split_uses_every_image_once():
    stream = DigitsStream().build()
    rows = [tuple(row) for task in stream for part in (task.train, task.evaluation) for row in part.x.tolist()]
    assert len(rows) == len(set(rows)) == 1797
    assert [sorted(set(task.train.y.tolist())) for task in stream] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_the_test_share_is_stratified_and_moves_with_the_seed():
    one, other = (DigitsStream(mode="permuted", n_tasks=1, data_seed=seed).build().tasks[0] for seed in (0, 1))
    assert len(one.evaluation) == 359
    held = torch.bincount(one.evaluation.y) / (torch.bincount(one.evaluation.y) + torch.bincount(one.train.y))
    assert (held - 0.2).abs().max() < 0.006
    assert not torch.equal(one.evaluation.x, other.evaluation.x)


def test_scenarios():
    assert set(DigitsStream(scenario="domain").build().tasks[4].train.y.tolist()) == {0, 1}
    assert DigitsStream(scenario="task").build().tasks[4].labels == ("8", "9")


@pytest.mark.parametrize(
    ("name", "value"),
    [("mode", "rotated"), ("n_tasks", 0), ("classes_per_task", 3), ("scenario", "head"), ("test_share", 1.0)],
)
def test_a_bad_field_is_named(name, value):
    with pytest.raises(ConfigError, match=rf"stream\.digits\.{name}"):
        DigitsStream(**{name: value})

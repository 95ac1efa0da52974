import pytest
import torch

from everlearn.errors import ConfigError, StreamError
from everlearn.streams.images import (
    ImageSet,
    check_disjoint_images,
    check_mode,
    check_split,
    permuted_tasks,
    rotate,
    rotated_tasks,
    split_tasks,
)
from everlearn.types import TensorRows


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    parts = [TensorRows(torch.rand(n, 4, 4, generator=generator), torch.arange(n) % 10) for n in (40, 20)]
    return ImageSet(*parts)


@pytest.mark.parametrize(
    ("scenario", "targets", "labels"),
    [("class", {2, 3}, tuple("0123456789")), ("domain", {0, 1}, ("0", "1")), ("task", {0, 1}, ("2", "3"))],
)
def test_split_by_scenario(images, scenario, targets, labels):
    task = split_tasks(images, 5, 2, scenario)[1]
    assert task.name == "split_2_3"
    assert (set(task.train.y.tolist()), task.labels) == (targets, labels)
    assert len(task.train) == 8
    chosen = (images.train.y == 2) | (images.train.y == 3)
    assert torch.equal(task.train.x, images.train.x[chosen].flatten(1))


def test_permutations_are_fixed_and_the_first_is_the_identity(images):
    tasks = permuted_tasks(images, 3, 0)
    flat = images.train.x.flatten(1)
    assert torch.equal(tasks[0].train.x, flat)
    for task in tasks[1:]:
        assert not torch.equal(task.train.x, flat)
        assert torch.equal(task.train.x.sort().values, flat.sort().values)
        order = [int((flat[0] == pixel).nonzero()) for pixel in task.train.x[0]]
        assert torch.equal(task.evaluation.x, images.evaluation.x.flatten(1)[:, order])
    assert not torch.equal(tasks[1].train.x, tasks[2].train.x)
    assert torch.equal(tasks[2].train.x, permuted_tasks(images, 3, 0)[2].train.x)
    assert not torch.equal(tasks[2].train.x, permuted_tasks(images, 3, 1)[2].train.x)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_counter_clockwise(images, quarters):
    expected = torch.rot90(images.train.x, quarters, dims=(1, 2))
    torch.testing.assert_close(rotate(images.train.x, 90.0 * quarters), expected, atol=1e-5, rtol=0)


def test_a_turn_keeps_the_middle_and_blackens_the_corners():
    turned = rotate(torch.ones(1, 5, 5), 45.0)[0]
    assert turned[2, 2] == pytest.approx(1.0)
    assert turned[0, 0] < 0.5


def test_rotated_tasks_are_named_by_their_angle(images):
    tasks = rotated_tasks(images, [0.0, 22.5])
    assert [task.name for task in tasks] == ["rotated_0", "rotated_22.5"]
    assert torch.equal(tasks[0].train.x, images.train.x.flatten(1))


def test_shared_images_are_refused(images):
    check_disjoint_images("t", images.train, images.evaluation)
    shared = TensorRows(torch.cat([images.evaluation.x[:3], images.train.x[7:8]]), torch.zeros(4))
    with pytest.raises(StreamError, match=r"the first are number 7 and 3. Got 1"):
        check_disjoint_images("t", images.train, shared)


def test_options_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"stream.s.mode: is no mode. Got 'splitt'. Did you mean 'split'"):
        check_mode("s", "splitt", ("split", "permuted"), None, 5)
    with pytest.raises(ConfigError, match=r"stream.s.scenario.*Got 'class'. Allowed with mode permuted: domain"):
        check_mode("s", "permuted", ("split", "permuted"), "class", 5)
    with pytest.raises(ConfigError, match=r"stream.s.n_tasks"):
        check_mode("s", "split", ("split",), None, 0)
    with pytest.raises(ConfigError, match="Got '6 tasks of 2'"):
        check_split("s", 6, 2)
    with pytest.raises(ConfigError, match=r"classes_per_task: is too small. Got 1"):
        check_split("s", 6, 1)

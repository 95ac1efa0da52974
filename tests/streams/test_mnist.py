import gzip
import struct
from pathlib import Path

import pytest
import torch

from everlearn import registry
from everlearn.errors import ConfigError, StreamError
from everlearn.streams.images import rotate
from everlearn.streams.mnist import MnistStream

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"


def _write(folder, part, images, labels):
    n, height, width = images.shape
    header = struct.pack(">4B3I", 0, 0, 8, 3, n, height, width)
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.numpy().tobytes()))
    header = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.to(torch.uint8).numpy().tobytes())


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for part, n in (("train", 200), ("t10k", 100)):
        images = torch.randint(256, (n, 28, 28), generator=generator, dtype=torch.uint8)
        _write(tmp_path, part, images, torch.arange(n) % 10)
    return str(tmp_path)


def test_it_is_registered():
    assert registry.find("stream", "mnist") is MnistStream


@pytest.mark.parametrize(("mode", "n_tasks"), [("split", 5), ("permuted", 10), ("rotated", 10)])
def test_it_is_deterministic_and_in_range(folder, mode, n_tasks):
    first, second = (MnistStream(folder, mode=mode).build() for _ in range(2))
    assert len(first) == n_tasks
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.train.x, other.train.x)
        assert (one.train.x.dtype, one.train.y.dtype) == (torch.float32, torch.int64)
        assert one.train.x.shape[1:] == (784,)
        assert one.train.x.min() >= 0
        assert one.train.x.max() <= 1.0001


def test_task_0_of_permuted_and_rotated_is_left_as_it_is(folder):
    permuted, rotated = (MnistStream(folder, mode=mode, n_tasks=4).build() for mode in ("permuted", "rotated"))
    assert torch.equal(permuted.tasks[0].train.x, rotated.tasks[0].train.x)
    assert [task.name for task in rotated] == ["rotated_0", "rotated_45", "rotated_90", "rotated_135"]
    images = rotated.tasks[0].evaluation.x.reshape(-1, 28, 28)
    assert torch.equal(rotated.tasks[1].evaluation.x, rotate(images, 45.0).flatten(1))


def test_degrees_give_the_tasks(folder):
    assert [task.name for task in MnistStream(folder, mode="rotated", degrees=[0.0, 30.0]).build()] == [
        "rotated_0",
        "rotated_30",
    ]


@pytest.mark.parametrize("mode", ["split", "permuted"])
def test_limits_hold_for_each_task_and_keep_the_classes_shares(folder, mode):
    for task in MnistStream(folder, mode=mode, n_tasks=2, n_train=20, n_eval=10).build():
        assert (len(task.train), len(task.evaluation)) == (20, 10)
        assert len(set(torch.bincount(task.train.y)[task.train.y.unique()].tolist())) == 1


def test_normalize_is_affine(folder):
    plain, normal = (MnistStream(folder, normalize=flag).build().tasks[2] for flag in (False, True))
    torch.testing.assert_close(normal.train.x, (plain.train.x - 0.1307) / 0.3081)
    assert torch.equal(normal.train.y, plain.train.y)


def test_images_and_labels_must_match(folder):
    _write(Path(folder), "train", torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(4))
    with pytest.raises(StreamError, match="Got '3 images and 4 labels'"):
        MnistStream(folder).build()
    _write(Path(folder), "train", torch.zeros(3, 28, 28, dtype=torch.uint8), torch.tensor([1, 2, 17]))
    with pytest.raises(StreamError, match=r"a label is no digit. Got 17"):
        MnistStream(folder).build()


def test_an_image_in_both_parts_is_refused(folder):
    image = torch.full((1, 28, 28), 7, dtype=torch.uint8)
    for part in ("train", "t10k"):
        _write(Path(folder), part, image, torch.zeros(1))
    with pytest.raises(StreamError, match="share images"):
        MnistStream(folder).build()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StreamError, match="train-images-idx3-ubyte"):
        MnistStream(str(tmp_path)).build()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"mode": "shuffled"}, "mode"),
        ({"n_tasks": 0}, "n_tasks"),
        ({"n_tasks": 6}, "classes_per_task"),
        ({"mode": "rotated", "scenario": "task"}, "scenario"),
        ({"degrees": [0.0]}, "degrees"),
        ({"mode": "rotated", "degrees": []}, "degrees"),
        ({"mode": "rotated", "degrees": [1.0, 1.0]}, "degrees"),
        ({"mode": "rotated", "degrees": [float("nan")]}, "degrees"),
        ({"mode": "rotated", "degrees": [1.0], "n_tasks": 2}, "degrees"),
        ({"n_train": 0}, "n_train"),
        ({"n_eval": -1}, "n_eval"),
    ],
)
def test_a_bad_field_is_named(fields, name):
    with pytest.raises(ConfigError, match=rf"stream\.mnist\.{name}"):
        MnistStream("x", **fields)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not there")
def test_the_real_images_and_the_example_in_the_header():
    stream = MnistStream(str(DATA)).build()
    assert sum(len(task.train) for task in stream) == 60_000
    assert sum(len(task.evaluation) for task in stream) == 10_000
    row = stream.tasks[0].train[0]
    pixels = (row["x"] * 255).round()
    assert row["y"] == 0
    assert pixels[pixels > 0][:3].tolist() == [51, 159, 253]

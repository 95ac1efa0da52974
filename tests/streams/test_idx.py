import gzip
import struct

import pytest
import torch

from everlearn.errors import StreamError
from everlearn.streams.idx import find_idx, read_idx


def _idx(shape, content, kind=0x08):
    return struct.pack(f">4B{len(shape)}I", 0, 0, kind, len(shape), *shape) + content


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_bytes_come_back_in_their_shape(tmp_path, pack):
    path = tmp_path / "a"
    path.write_bytes(pack(_idx((2, 1, 3), bytes(range(250, 256)))))
    assert torch.equal(read_idx(path, 3), torch.arange(250, 256).to(torch.uint8).reshape(2, 1, 3))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (_idx((6,), bytes(6), kind=0x0D), "no IDX file of this kind. Got '00 00 0d 01'"),
        (_idx((2, 3), bytes(6)), "no IDX file of this kind"),
        (_idx((6,), bytes(5)), "is cut off. Got '13 bytes'. By its header (6,) it has 14 bytes"),
        (_idx((6,), bytes(7)), "is longer than its header says"),
        (b"\0\0\x08\x01\0\0", "is cut off"),
        (b"", "no IDX file"),
        (gzip.compress(_idx((6,), bytes(6)), mtime=0)[:-9], "can't be read"),
        (gzip.compress(_idx((600,), bytes(600)), mtime=0)[:12] + b"\xff" * 30, "can't be read"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, content, what):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(StreamError) as caught:
        read_idx(path, 1)
    assert str(caught.value).startswith(str(path))
    assert what in str(caught.value)


def test_files_are_found_under_their_usual_names(tmp_path):
    with pytest.raises(StreamError, match=r"a file is missing. Got 'train-images-idx3-ubyte'"):
        find_idx(tmp_path, "train-images", 3)
    (tmp_path / "train-images.idx3-ubyte.gz").write_bytes(b"x")
    assert find_idx(tmp_path, "train-images", 3).name == "train-images.idx3-ubyte.gz"

"""The IDX format of MNIST: big-endian sizes, then bytes; gzip or not."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from everlearn.errors import StreamError, describe

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def find_idx(folder: Path, stem: str, n_dimensions: int) -> Path:
    """Return the path of `<stem>-idx<n>-ubyte` in `folder`, with a dot for the first dash or `.gz` behind too.

    Raises:
        StreamError: if there is none.
    """
    names = [f"{stem}{mark}idx{n_dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    where = f"stream.mnist.folder {str(folder)!r}"
    raise StreamError(describe(where, "a file is missing", names[0], f"Put one of these there: {', '.join(names)}"))


def read_idx(path: Path, n_dimensions: int) -> torch.Tensor:
    """Return the unsigned bytes of an IDX file in its shape, as uint8.

    Raises:
        StreamError: if the file can't be unpacked, is no IDX file of unsigned bytes with `n_dimensions`, or holds fewer
            or more bytes than its header says.
    """
    content = _unpacked(path)
    expected = bytes((0, 0, _UNSIGNED_BYTE, n_dimensions))
    if content[:4] != expected:
        way_out = f"The first four bytes must be {expected.hex(' ')}"
        raise StreamError(describe(str(path), "is no IDX file of this kind", content[:4].hex(" "), way_out))
    header_bytes = 4 + 4 * n_dimensions
    if len(content) < header_bytes:
        way_out = f"Its header alone has {header_bytes} bytes; fetch it again"
        raise StreamError(describe(str(path), "is cut off", f"{len(content)} bytes", way_out))
    shape = struct.unpack_from(f">{n_dimensions}I", content, offset=4)
    n_expected = header_bytes + math.prod(shape)
    if len(content) != n_expected:
        what = "is cut off" if len(content) < n_expected else "is longer than its header says"
        way_out = f"By its header {shape} it has {n_expected} bytes; fetch it again"
        raise StreamError(describe(str(path), what, f"{len(content)} bytes", way_out))
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape).copy())


def _unpacked(path: Path) -> bytes:
    try:
        packed = path.read_bytes()
        return gzip.decompress(packed) if packed.startswith(_GZIP_MAGIC) else packed
    except (OSError, EOFError, zlib.error) as error:
        raise StreamError(describe(str(path), "can't be read", str(error), "Fetch the file again")) from error

import datasets
import pytest
import torch

from everlearn.errors import StateError
from everlearn.memory import disk
from everlearn.memory.disk import DiskRows, open_rows, write_rows
from everlearn.memory.rows import n_rows, pick, pick_to_disk, rows_of
from everlearn.types import TensorRows

ROWS = [
    {"prompt": "one", "completion": "1"},
    {"messages": [{"role": "user", "content": "ü"}, {"role": "assistant", "content": "a", "name": "x"}], "n": 1},
    {"text": "t", "label": 2, "text_pair": None, "choices": ["a", "b"], "n": 0.5},
]


def test_rows_come_back_as_they_were_whichever_keys_they_have(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_CHUNK", 2)
    stored = write_rows(ROWS, 3, tmp_path)
    rows = open_rows(stored, tmp_path)
    assert isinstance(rows, DiskRows)
    assert list(rows) == [rows[i] for i in range(3)] == ROWS
    assert [list(row) for row in rows] == [list(row) for row in ROWS]
    assert rows.select([2, 0, 2]) == [ROWS[2], ROWS[0], ROWS[2]]
    assert (len(rows), n_rows(stored), stored["n_bytes"]) == (3, 3, next(tmp_path.iterdir()).stat().st_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_tensors_come_back(tmp_path, dtype):
    rows = TensorRows(torch.arange(12).reshape(6, 2).to(dtype), torch.arange(6))
    stored = pick_to_disk(rows, [4, 1], tmp_path)
    found = rows_of(stored, tmp_path)
    assert torch.equal(found.x, rows.x[[4, 1]])
    assert (found.y.tolist(), found.x.dtype, n_rows(stored)) == ([4, 1], dtype, 2)


def test_samples_of_a_plain_module_come_back(tmp_path):
    samples = [{"x": torch.rand(n), "y": n} for n in (2, 3)] + [{"x": torch.tensor([1, 2]), "y": torch.tensor(0.1)}]
    for row, found in zip(samples, open_rows(write_rows(samples, 3, tmp_path), tmp_path), strict=True):
        assert torch.equal(row["x"], found["x"])
        assert row["x"].dtype == found["x"].dtype
        assert row["y"] == found["y"]


def test_equal_rows_make_one_file_and_other_rows_another(tmp_path):
    first = pick_to_disk(ROWS, [0, 1], tmp_path)
    assert pick_to_disk(datasets.Dataset.from_list(ROWS[:1]), [0], tmp_path) == pick_to_disk(ROWS, [0], tmp_path)
    assert pick_to_disk(rows_of(first, tmp_path), [0, 1], tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 2
    assert rows_of(pick(rows_of(first, tmp_path), [1])) == [ROWS[1]]


def test_a_missing_or_altered_file_is_an_error(tmp_path):
    stored = write_rows(ROWS, 3, tmp_path)
    with pytest.raises(StateError, match="its folder isn't known"):
        open_rows(stored, None)
    with pytest.raises(StateError, match=r"can't be read .* Put it back"):
        open_rows(stored, tmp_path / "elsewhere")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(StateError, match="is damaged"):
        open_rows(stored, tmp_path)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(rows, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "_write_arrow", full)
    with pytest.raises(StateError, match="No space left"):
        write_rows(ROWS, 3, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_lies_on_disk_is_mapped_not_read(tmp_path):
    rows = TensorRows(torch.zeros(2**18, 16), torch.zeros(2**18, dtype=torch.long))  # 18 MiB
    stored = write_rows(rows, len(rows), tmp_path)
    del rows
    before = mapped_bytes()
    found = open_rows(stored, tmp_path)
    assert found.x[[3, 2**17]].shape == (2, 16)
    assert mapped_bytes() - before < 6 * 2**20


def mapped_bytes():
    """Return the memory that the process alone holds."""
    with open("/proc/self/smaps_rollup") as file:
        lines = dict(line.split(":", 1) for line in file if line.startswith(("Private_Dirty", "Anonymous")))
    return int(lines["Anonymous"].split()[0]) * 1024

"""The folder: what is in it, and that it appears whole or not at all."""

import pyarrow.parquet as pq
import pytest

from everlearn.config import read_yaml
from everlearn.errors import ConfigError, StateError, StreamError
from everlearn.kinds.reinforcement.verl import export as module
from everlearn.kinds.reinforcement.verl.export import export_verl
from support.countdown import recipe_with


def test_what_is_in_it(exported):
    files = sorted(str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file())
    data = [f"data/{group}/{split}.parquet" for group in ("0", "plus_times") for split in ("test", "train")]
    assert files == ["README.md", "config/countdown.yaml", *data, "launch.sh", "reward.py", "stages"]
    assert (exported / "launch.sh").stat().st_mode & 0o111
    # 3 passes over 25 problems, 8 at a time: 10 iterations
    assert (exported / "stages").read_text() == "1 0 10\n1 plus_times 20\n2 0 30\n2 plus_times 40\n"
    assert read_yaml(exported / "config/countdown.yaml")["trainer"]["project_name"] == "small"
    assert pq.read_metadata(exported / "data/plus_times/train.parquet").num_rows == 25


def test_a_folder_that_exists_is_kept(exported):
    before = sorted(exported.rglob("*"))
    with pytest.raises(ConfigError, match=r"exists\. Got 'countdown'\. Name a new folder"):
        export_verl(recipe_with(), exported)
    assert sorted(exported.rglob("*")) == before


def test_gpus_that_draw_together_divide_all(tmp_path):
    with pytest.raises(ConfigError, match=r"--tensor-parallel: doesn't divide 4\. Got 3"):
        export_verl(recipe_with(processes=4), tmp_path / "out", tensor_parallel=3)
    export_verl(recipe_with(processes=4), tmp_path / "out", tensor_parallel=2)
    config = read_yaml(tmp_path / "out/config/countdown.yaml")
    assert config["actor_rollout_ref"]["rollout"]["tensor_model_parallel_size"] == 2


def test_what_fails_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(StreamError, match="too few problems"):
        export_verl(recipe_with(stream={"max_number": 3}), tmp_path / "few")

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_file", full)
    with pytest.raises(StateError, match=r"full: can't be written \(No space left on device\)"):
        export_verl(recipe_with(), tmp_path / "full")
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_runs_dry_is_told(tmp_path):
    changes = {"groups": ["0"], "sizes": [3, 4], "max_number": 5, "n_train": 60, "n_eval": 20}
    notes = export_verl(recipe_with(stream=changes), tmp_path / "out")
    assert len(notes) == 1
    assert "ran dry" in notes[0]

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_script_runs_small_on_a_cpu(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [str(ROOT / "benchmarks" / "gpu.sh"), "--device", "cpu", "--tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "gpu.json").read_text())["numbers"]
    trained = numbers["training"]["tiny"]
    assert {"ours", "by_hand"} <= set(trained["tokens_per_s"])
    assert all(rate > 0 for rate in trained["tokens_per_s"].values())
    assert numbers["scoring"]["tiny"]["answers_per_s"]["ours"] > 0
    assert numbers["pocket"]["n_tokens"] == 1000
    assert not numbers["failed"]
    with tarfile.open(tmp_path / "pocket.tar") as packed:
        assert "pocket/model.safetensors" in packed.getnames()
    assert "| tiny | by_hand |" in (tmp_path / "gpu.md").read_text()

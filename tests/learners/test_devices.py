import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch
import yaml

from everlearn.errors import ConfigError
from everlearn.learners.devices import start_accelerator
from everlearn.runs import run


def test_it_gives_what_was_asked():
    accelerator = start_accelerator(device="cpu")
    assert accelerator.device == torch.device("cpu")
    assert (accelerator.num_processes, accelerator.mixed_precision) == (1, "no")
    assert start_accelerator(device="cpu", precision="bf16").mixed_precision == "bf16"
    assert start_accelerator(device="cpu", precision="no").mixed_precision == "no"


@pytest.mark.parametrize(("library", "n_calls"), [("glibc", 2), ("", 0)])
def test_only_glibc_is_told_to_keep_freed_memory(monkeypatch, library, n_calls):
    calls = []
    monkeypatch.setattr("platform.libc_ver", lambda: (library, "2.36"))
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(mallopt=lambda *call: calls.append(call)))
    start_accelerator(device="cpu")
    assert len(calls) == n_calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16", "device": "cpu"}, "fp16 needs a GPU"),
        ({"precision": "fp32"}, r"learner\.precision: is unknown"),
        ({"device": "gpu"}, "device: is unknown"),
        ({"processes": 0}, "processes: is out of range"),
        ({"processes": 2}, r"1 process\(es\) were started. Got 2.*torchrun --nproc-per-node 2"),
        ({"track": ("tensorbord",)}, "Did you mean 'tensorboard'"),
    ],
)
def test_what_it_can_not_give_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        start_accelerator(**options)


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU is there"):
        start_accelerator(device="cuda")


def test_a_missing_tracker_names_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb is not installed.*pip install .*everlearn\[track\]"):
        start_accelerator(track=("wandb",))


def test_processes_that_were_started_but_not_asked_for_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"4 process\(es\) were started. Got 1.*processes: 4"):
        start_accelerator()


TRACKED = {
    "stream": {"name": "digits", "mode": "split", "n_tasks": 2, "scenario": "task"},
    "model": {"name": "mlp", "options": {"hidden": [8]}},
    "learner": {"name": "sft", "epochs": 1, "batch_size": 64},
}


def test_a_tracker_receives_losses_and_scores(tmp_path):
    run({**TRACKED, "track": ["tensorboard"]}, tmp_path / "run")
    written = list((tmp_path / "run").rglob("events.out.tfevents.*"))
    assert written
    assert b"loss/task" in b"".join(path.read_bytes() for path in written)


def test_weights_and_biases_and_mlflow_receive_the_same(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**TRACKED, "track": ["wandb", "mlflow"]}))
    done = subprocess.run(  # in a process of its own: both leave threads and handlers behind
        [sys.executable, "-m", "everlearn", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")],
        env={**os.environ, "WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = {"split_0_1/loss/task", "split_0_1/learning_rate", "score/split_0_1", "score/split_2_3"}
    (offline,) = (tmp_path / "run").rglob("*.wandb")
    assert all(name.encode() in offline.read_bytes() for name in wanted)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert wanted <= {key for (key,) in database.execute("select distinct key from metrics")}

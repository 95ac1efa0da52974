"""verl's own composition, validator, data set and reward loader take what is exported. Needs EVERLEARN_VERL_PYTHON:
a Python with verl 0.9.1, hydra-core, tensordict, codetiming, torchdata, pylatexenc, ray, and a torch for the CPU."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from everlearn.cli import main
from support.qwen import make_qwen

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="session")
def qwen(tmp_path_factory) -> Path:
    """Folder of a tiny Qwen2."""
    return make_qwen(tmp_path_factory.mktemp("models") / "qwen")


def check(python, tmp_path, *arguments):
    """Return the process that has verl look at a folder."""
    outer = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = {**outer, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    command = [python, str(ROOT / "tests/support/verl_check.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)


@pytest.mark.parametrize(
    ("name", "n_gpus", "batch", "rates"),
    [("countdown_qwen_1.5b", 8, 128, (1e-6, 1e-5)), ("countdown_qwen_3b", 4, 64, (8e-7, 8e-6))],
)
def test_verl_takes_the_recipes(name, n_gpus, batch, rates, verl_python, qwen, problems, tmp_path):
    settings = [f"model.name={qwen}", f"stream.paths=[{problems}]"]
    out = tmp_path / "out"
    options = [option for setting in settings for option in ("--set", setting)]
    recipe = str(ROOT / f"recipes/{name}.yaml")
    assert main(["countdown", "export-verl", recipe, str(out), "--tensor-parallel", "2", *options]) == 0
    done = check(verl_python, tmp_path, out)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    config = found["config"]
    assert (config["trainer"]["n_gpus_per_node"], config["data"]["train_batch_size"]) == (n_gpus, batch)
    assert (config["actor_rollout_ref"]["actor"]["optim"]["lr"], config["critic"]["optim"]["lr"]) == rates
    assert config["actor_rollout_ref"]["rollout"]["tensor_model_parallel_size"] == 2
    assert (found["use_critic"], found["use_reference_policy"]) == (True, False)
    assert found["data"]["train"]["sources"] == ["countdown_0"]
    assert found["data"]["val"]["sources"] == [f"countdown_{group}" for group in range(4)]
    for split, n in (("train", 130), ("val", 24)):
        assert found["data"][split]["n"] == n
        assert found["data"][split]["asked"].startswith("<|im_start|>user\nUsing the numbers")
        assert found["data"][split]["scores"] == [{"score": 1.0, "acc": 1.0}, {"score": 0.0, "acc": 0.0}]
    assert len((out / "stages").read_text().splitlines()) == 12


def test_verl_refuses_what_is_wrong(verl_python, exported, tmp_path):
    done = check(verl_python, tmp_path, exported, "actor_rollout_ref.actor.optim.lrr=1")
    assert done.returncode != 0
    assert "lrr" in done.stderr


def test_hydra_takes_what_the_launch_script_says(verl_python, exported, tmp_path):
    folder, tools = tmp_path / "to train", tmp_path / "bin"
    shutil.copytree(exported, folder)
    tools.mkdir()
    for name, command in (("ray", "true"), ("python", f'exec "{verl_python}" "$@"')):
        (tools / name).write_text(f"#!/bin/sh\n{command}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        [str(folder / "launch.sh"), "--cfg", "job"],  # shows the configuration, and trains nothing
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == "round 1, group 0: verl ended after iteration 0 of 10; see logs/\n"
    log = (folder / "logs/round1_group_0.log").read_text()
    shown = yaml.safe_load(log[log.index("model_engine:") :])
    assert (shown["folder"], shown["group"]) == (str(folder), "0")
    assert (shown["trainer"]["total_training_steps"], shown["trainer"]["val_before_train"]) == (10, True)
    assert shown["trainer"]["default_local_dir"] == f"{folder}/checkpoints"
    assert shown["critic"]["checkpoint"]["load_contents"] == ["model"]

"""The Docker files: services agree with their recipes, the scripts do what they say. No image is built."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from everlearn.config import read_yaml
from everlearn.rl.server import command

DOCKER = Path(__file__).parents[1] / "docker"
TRAINERS = {"curriculum-trainer-1.5b": "countdown_qwen_1.5b", "curriculum-trainer-3b": "countdown_qwen_3b"}
SERVERS = {"curriculum-trainer-1.5b": "rollouts-1.5b", "curriculum-trainer-3b": "rollouts-3b"}
TORCHRUN = '#!/bin/sh\necho "torchrun $*"\nexit "${CODE:-0}"\n'


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def test_services_and_volumes(services):
    assert set(services) == {"data-generator", "evaluator", *TRAINERS, *SERVERS.values()}
    for service in (service for name, service in services.items() if name not in SERVERS.values()):
        assert {"data/continual", "checkpoints", "logs", "wandb"} <= {
            volume.split(":")[0].removeprefix("../") for volume in service["volumes"]
        }
        assert service["build"] == {"context": "..", "dockerfile": "docker/Dockerfile"}


@pytest.mark.parametrize(("service", "recipe"), TRAINERS.items())
def test_trainers_have_the_gpus_of_their_recipes(services, service, recipe):
    script, path, n = services[service]["command"].split()
    content = read_yaml(DOCKER.parent / "recipes" / f"{recipe}.yaml")
    n_gpus = content["processes"]
    assert (script, path) == ("/everlearn/docker/train.sh", f"/everlearn/recipes/{recipe}.yaml")
    (device,) = services[service]["deploy"]["resources"]["reservations"]["devices"]
    assert (int(n), len(device["device_ids"]), device["capabilities"]) == (n_gpus, n_gpus, ["gpu"])
    server, learner = services[SERVERS[service]], content["learner"]
    assert services[service]["depends_on"] == {SERVERS[service]: {"condition": "service_healthy"}}
    (others,) = server["deploy"]["resources"]["reservations"]["devices"]
    assert len(others["device_ids"]) == learner["vllm_tensor_parallel"]
    assert not set(others["device_ids"]) & set(device["device_ids"])
    started = command(content["model"]["name"], learner["vllm"], learner["vllm_tensor_parallel"])
    assert started == f"VLLM_SERVER_DEV_MODE=1 vllm serve {server['command']}"
    assert server["environment"]["VLLM_SERVER_DEV_MODE"] == "1"
    assert server["ipc"] == services[service]["ipc"] == "host"  # they share /dev/shm


def test_compose_takes_the_file():
    """By docker's own client where it has compose, else by docker-compose."""
    command = ["docker", "compose"]
    if not shutil.which("docker") or subprocess.run([*command, "version"], capture_output=True).returncode:
        command = ["docker-compose"]
    if not shutil.which(command[0]):
        pytest.skip("there is no docker compose")
    done = subprocess.run([*command, "-f", str(DOCKER / "compose.yaml"), "config"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == {"data-generator", "evaluator", *TRAINERS, *SERVERS.values()}


@pytest.mark.parametrize("script", ["install.sh", "train.sh"])
def test_scripts_can_be_run(script):
    assert os.access(DOCKER / script, os.X_OK)
    subprocess.run(["bash", "-n", str(DOCKER / script)], check=True)


def test_a_trainer_begins_a_run_and_goes_on_with_it(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "torchrun").write_text(TORCHRUN)
    (tmp_path / "torchrun").chmod(0o755)

    def train(**environment):
        path = f"{tmp_path}:{os.environ['PATH']}"
        command = [str(DOCKER / "train.sh"), "/recipes/small.yaml", "2"]
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True
        )

    begun = train()
    assert begun.stdout == "torchrun --nproc-per-node 2 -m everlearn run /recipes/small.yaml --out checkpoints/small\n"
    (tmp_path / "checkpoints/small").mkdir(parents=True)
    (tmp_path / "checkpoints/small/recipe.yaml").touch()
    went_on = train(CODE="3")
    assert went_on.stdout == "torchrun --nproc-per-node 2 -m everlearn resume checkpoints/small\n"
    assert went_on.returncode == 3
    assert (tmp_path / "logs/small.log").read_text() == begun.stdout + went_on.stdout


def test_an_environment_that_exists_is_kept(tmp_path):
    done = subprocess.run(["sh", str(DOCKER / "install.sh"), str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert "exists; name a new folder" in done.stderr

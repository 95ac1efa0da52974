"""The launch script, with stand-ins for Ray and verl that write down how they are called."""

import os
import shutil
import subprocess

import pytest

RAY = """#!/bin/sh
echo "ray $*" >> "$CALLS"
"""
# trains as far as STOP_AT, or to the end
PYTHON = """#!/bin/bash
echo "$*" >> "$CALLS"
for option in "$@"; do
    case $option in
        trainer.total_training_steps=*) end=${option#*=} ;;
        trainer.default_local_dir=*) folder=$(eval "echo ${option#*=}") ;;
    esac
done
reached=$end
if [[ -n $STOP_AT ]] && ((STOP_AT < end)); then reached=$STOP_AT; fi
for step in $((reached - 2)) $reached; do
    mkdir -p "$folder/global_step_$step/actor"
    touch "$folder/global_step_$step/data.pt" "$folder/global_step_$step/actor"/{model,optim}_world_size_1_rank_0.pt
done
echo -n "$reached" > "$folder/latest_checkpointed_iteration.txt"
exit "${CODE:-0}"
"""


@pytest.fixture
def launch(exported, tmp_path):
    """Return a function that launches a copy of the folder, and returns the process, and the calls it made."""
    folder, tools = tmp_path / "to train", tmp_path / "bin"
    shutil.copytree(exported, folder)
    tools.mkdir()
    for name, text in (("ray", RAY), ("python", PYTHON)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    def start(*options, **environment):
        calls = tmp_path / "calls"
        calls.write_text("")
        outer = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environment = {**outer, "PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(calls), **environment}
        command = ["bash", str(folder / "launch.sh"), *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        return done, calls.read_text().splitlines()

    start.folder = folder
    return start


def options_of(call):
    return dict(option.split("=", 1) for option in call.split(" ") if "=" in option)


def test_the_script_is_bash(exported):
    subprocess.run(["bash", "-n", str(exported / "launch.sh")], check=True)


def test_each_group_of_each_round_goes_on_from_the_last(launch):
    done, calls = launch("trainer.nnodes=2")
    assert done.returncode == 0, done.stderr
    assert (calls[0], calls[-1]) == ("ray start --head --disable-usage-stats", "ray stop")
    stages = [options_of(call) for call in calls[1:-1]]
    assert [(one["group"], one["trainer.total_training_steps"], one["trainer.experiment_name"]) for one in stages] == [
        ("'0'", "10", "round1_group_0"), ("'plus_times'", "20", "round1_group_plus_times"),
        ("'0'", "30", "round2_group_0"), ("'plus_times'", "40", "round2_group_plus_times"),
    ]  # fmt: skip
    # a group begins with weights alone, and with its own order of problems
    assert {one["actor_rollout_ref.actor.checkpoint.load_contents"] for one in stages} == {"[model]"}
    assert {one["critic.checkpoint.load_contents"] for one in stages} == {"[model]"}
    assert [one["trainer.val_before_train"] for one in stages] == ["true", "false", "false", "false"]
    assert {one["trainer.nnodes"] for one in stages} == {"2"}
    kept = sorted(path.parent.name for path in launch.folder.glob("checkpoints/*/data.pt"))
    assert kept == ["global_step_40"]
    weights = sorted(str(path.relative_to(launch.folder)) for path in launch.folder.glob("checkpoints/*/actor/*"))
    assert weights == [f"checkpoints/global_step_{end}/actor/model_world_size_1_rank_0.pt" for end in (10, 20, 30, 40)]
    assert "All 40 iterations are done" in done.stdout
    again, calls = launch()
    assert (again.returncode, len(calls)) == (0, 2)  # nothing is left to train


def test_after_a_stop_it_goes_on_within_the_group(launch):
    done, calls = launch(STOP_AT="24", CODE="1")
    assert done.returncode != 0
    assert [options_of(call)["group"] for call in calls[1:-1]] == ["'0'"]
    done, calls = launch(STOP_AT="24", RAY_ADDRESS="head:6379")
    assert done.returncode == 1
    assert "round 2, group 0: verl ended after iteration 24 of 30; see logs/" in done.stderr
    assert len(list(launch.folder.glob("checkpoints/global_step_24/actor/optim_*"))) == 1
    assert not any(call.startswith("ray") for call in calls)
    done, calls = launch()
    assert done.returncode == 0, done.stderr
    stages = [options_of(call) for call in calls[1:-1]]
    loaded = [(one["group"], one["actor_rollout_ref.actor.checkpoint.load_contents"]) for one in stages]
    assert loaded == [("'0'", "[model,optimizer,extra]"), ("'plus_times'", "[model]")]
    assert {path.name for path in launch.folder.glob("checkpoints/global_step_*")} == {
        f"global_step_{end}" for end in (10, 20, 30, 40)
    }


def test_checkpoints_may_lie_elsewhere(launch, tmp_path):
    done, _ = launch(CHECKPOINTS=str(tmp_path / "shared disk"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shared disk/latest_checkpointed_iteration.txt").read_text() == "40"
    assert not (launch.folder / "checkpoints").exists()

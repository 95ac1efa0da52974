"""Two gloo processes learn what one does: batches, Fisher, memory, projection, distillation, scores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from everlearn.errors import ConfigError
from everlearn.runs import run
from support import two_processes
from support.recipes import final_weights, language_recipe, lines_of, plain_recipe, reinforcement_recipe
from support.runs import assert_same
from support.vllm import serving

# SGD, for Adam makes rounding errors as large as the step; 9 rows a step, so that the shares differ
SGD = {"epochs": 2, "batch_size": 9, "learning_rate": 0.1, "optimizer": "sgd", "momentum": 0.5}
METHODS = {
    "plain": [],
    "replay_ewc": [{"name": "replay", "capacity": 10}, {"name": "ewc", "n_examples": 30, "batch_size": 7}],
    "agem": [{"name": "agem", "capacity": 20, "batch_size": 5}],
    "gem": [{"name": "gem", "capacity": 20, "batch_size": 5, "margin": 0.1}],
    "ogd": [{"name": "ogd", "capacity": 9, "n_examples": 13, "batch_size": 4}],
    "gpm": [{"name": "gpm", "threshold": 0.8, "n_examples": 13, "batch_size": 4}],
    "quadratics": [
        "si",
        "l2",
        {"name": "mas", "n_examples": 30, "batch_size": 7},
        {"name": "rwalk", "interval": 4},
        {"name": "ewc", "fisher": "kfac", "strength": 1.0, "n_examples": 30, "batch_size": 7},
    ],
    "gamma_ewc": ["replay", {"name": "gamma_ewc", "n_samples": 30, "batch_size": 7}],
    "lwf": ["lwf"],
    "lwf_cached": [{"name": "lwf", "cache_top_k": 20, "batch_size": 5}],
    "er_ace": [{"name": "er_ace", "capacity": 11}],
    "derpp": [{"name": "derpp", "capacity": 11, "top_k": 20, "batch_size": 5}],
    "replay_herding": [
        {"name": "replay", "capacity": 11, "selection": "herding", "batch_size": 5, "weigh_by_forgetting": True}
    ],
    "replay_gradient": [
        {"name": "replay", "capacity_bytes": 1300, "selection": "gradient", "weight": 2.0, "on_disk": True}
    ],
    "packnet": ["packnet"],
    "pnn": ["pnn"],
    "hat": ["hat"],
    "separate": ["separate"],
    "grow": ["grow"],
}
PLAIN_METHODS = {"osf": ["osf"]}  # that train full matrices
LANGUAGE_METHODS = {  # that need LoRA, or tokens
    "olora_l2": [{"name": "olora", "norm_strength": 0.01}, "l2"],
    "inflora": [{"name": "inflora", "n_examples": 7, "batch_size": 8}],
    "l2p_ema": ["l2p", "ema"],
    "sdft": [{"name": "sdft", "teacher_rate": 0.1}],
    "aflora_merge": ["aflora", "merge"],
    "progressive_prompts": ["progressive_prompts"],
    "inclora": ["inclora"],
    "cmt": [{"name": "cmt", "layer": 0, "epochs": 2, "replay_batch_size": 3}],
    "self_replay": [{"name": "self_replay", "n_texts": 7, "max_tokens": 6, "batch_size": 3}],
}


POLICIES = {  # odd numbers, so that the shares differ
    "policy": {"prompts": 5, "updates": 2, "minibatches": 2, "kl": 0.1},
    "policy_gae": {"prompts": 5, "advantage": "gae", "critic": "model", "entropy": 0.01},
}


SHARDED = {  # each process keeps a part of the weights
    "fsdp_policy": {"prompts": 5, "updates": 2, "minibatches": 2, "kl": 0.1},
    # passes of a few answers, so that one process takes more of them
    "fsdp_gae": {"prompts": 3, "advantage": "gae", "critic": "model", "replayed": "answer", "micro_tokens": 40},
    "fsdp_server": {"prompts": 3, "samples": 3},
}
PAUSED = "fsdp_gae_paused"  # in each task, and gone on with


def all_recipes(llama: Path, folder: Path, server: str) -> dict[str, dict]:
    folder.mkdir()
    recipes = {name: plain_recipe(strategies, learner=SGD) for name, strategies in {**METHODS, **PLAIN_METHODS}.items()}
    for name, strategies in {**METHODS, **LANGUAGE_METHODS}.items():
        recipe = language_recipe(strategies, llama, folder, learner={**SGD, "batch_size": 3, "accumulation": 2})
        recipes[f"language_{name}"] = recipe
    recipes["language_self_replay"]["evaluation"] = {"abilities": ["self"]}
    texts = {"name": "self_replay", "n_texts": 3, "max_tokens": 6}
    for name, learner in POLICIES.items():
        recipes[name] = reinforcement_recipe(["replay", texts], llama, folder, learner=learner, warm_start=None)
    full = {"name": str(llama), "adapter": {"name": "full"}}
    for name, learner in SHARDED.items():
        learner = {"sampling_dtype": "float32", **learner} | ({"vllm": server} if "server" in name else {})
        recipes[name] = reinforcement_recipe(["replay"], llama, folder, learner=learner, warm_start=None, model=full)
    recipes["fsdp_sft"] = {**recipes["language_plain"], "model": full}
    auto = {**SGD, "epochs": "auto", "learning_rate": "auto", "max_epochs": 12, "max_minutes": 100.0}
    recipes["auto"] = plain_recipe(["replay"], learner=auto)
    return recipes


@pytest.fixture(scope="module")
def folders(llama, tmp_path_factory):
    """Return the folders of the runs with one process and with two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    with serving(llama) as server:
        recipes = all_recipes(llama, one / "rows", server.url)
        for name, recipe in recipes.items():
            run(recipe, one / name)
        run_in_two(recipes, two)
    return one, two


def run_in_two(recipes: dict[str, dict], two: Path) -> None:
    """Run recipes in two processes, into folders of their names."""
    of_two = {name: {**r, "processes": 2, "fsdp": name.startswith("fsdp")} for name, r in recipes.items()}
    of_two[PAUSED] = of_two["fsdp_gae"]
    (two / "recipes.json").write_text(json.dumps(of_two))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [*command, two_processes.__file__, str(two / "recipes.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-9000:]


def check_close(first, second, where: str) -> None:
    """Check that JSON values are alike but for rounding."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            check_close(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        for one, other in zip(first, second, strict=True):
            check_close(one, other, where)
    elif isinstance(first, int | float):
        assert first == pytest.approx(second, rel=1e-3, abs=1e-5), where
    else:
        assert first == second, where


@pytest.mark.parametrize("name", [*POLICIES, *SHARDED])
def test_two_processes_draw_and_learn_what_one_does(name, folders):
    one, two = (folder / name for folder in folders)
    ours, theirs = (
        [json.loads(text) for text in (folder / "iterations.jsonl").read_text().splitlines()] for folder in (two, one)
    )
    assert len(ours) == len(theirs) == 7
    for first, second in zip(ours, theirs, strict=True):
        assert first.keys() == second.keys()
        for field in first.keys() - {"seconds"}:
            check_close(first[field], second[field], field)
    assert_same(final_weights(two), final_weights(one), tolerance=1e-3)


@pytest.mark.parametrize(
    "name",
    ["auto", "fsdp_sft", *METHODS, *PLAIN_METHODS, *(f"language_{name}" for name in (*METHODS, *LANGUAGE_METHODS))],
)
def test_two_processes_equal_one(name, folders):
    one, two = (folder / name for folder in folders)
    assert_same(final_weights(two), final_weights(one), tolerance=1e-5)
    ours, theirs = lines_of(two), lines_of(one)
    losses = [[line.pop("mean_loss", None) for line in lines] for lines in (ours, theirs)]
    assert [loss for loss in losses[0] if loss] == pytest.approx([loss for loss in losses[1] if loss], rel=1e-4)
    told = [[line.get("strategy_facts", {}).pop("gamma_ewc", {}) for line in lines] for lines in (ours, theirs)]
    check_close(*told, "gamma_ewc")
    abilities = [[line["value"] for line in lines if line["type"] == "ability"] for lines in (ours, theirs)]
    assert abilities[0] == pytest.approx(abilities[1], rel=1e-3, abs=1e-6)
    ours, theirs = ([line for line in lines if line["type"] != "ability"] for lines in (ours, theirs))
    assert ours[1:] == theirs[1:]
    assert len(ours) > 3


def test_what_is_sharded_goes_on_from_where_it_was_paused_to_the_same_end(folders):
    whole, paused = (folders[1] / name for name in ("fsdp_gae", PAUSED))
    assert_same(final_weights(paused), final_weights(whole))
    assert lines_of(paused) == lines_of(whole)


def test_both_processes_hold_the_same_buffers(folders):
    found = json.loads((folders[1] / "buffers.json").read_text())
    alone = two_processes.train_counted(1)
    assert len(found) == 4
    assert all(first == second for first, second in found.values())
    mean, variance = ("layers.1.running_mean", "layers.1.running_var")
    assert found[mean][0] == pytest.approx(alone[mean][0], abs=1e-6)
    assert found[variance][0] != pytest.approx(alone[variance][0], abs=1e-6)  # what lies between the processes is lost


def test_a_process_count_that_was_not_started_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"processes: 1 process\(es\) were started. Got 2. .*nproc-per-node 2"):
        run(plain_recipe([], processes=2), tmp_path / "two")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"processes: 2 process\(es\) were started. Got 1"):
        run(plain_recipe([]), tmp_path / "one")

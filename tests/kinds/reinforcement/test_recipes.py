"""The recipes for many GPUs: the reference's numbers, and that they start, on a tiny Qwen2 in one process."""

import json
from pathlib import Path

import pytest

from everlearn.runs import read_recipe, run
from everlearn.streams.countdown.generate import Order, generate
from everlearn.streams.countdown.groups import Space
from support.qwen import make_qwen

RECIPES = Path(__file__).parents[3] / "recipes"
NUMBERS = {  # GPUs that learn and that draw, problems in an iteration, rates of actor and critic
    "countdown_qwen_1.5b": ("Qwen/Qwen2.5-1.5B", 6, 2, 128, 1e-6, 1e-5),
    "countdown_qwen_3b": ("Qwen/Qwen2.5-3B", 2, 2, 64, 8e-7, 8e-6),
}
HERE = [
    "learner.vllm=null", "fsdp=false", "processes=1", "track=[]", "device=cpu", "stream.rounds=1",
    "learner.iterations=1", "learner.prompts=4", "learner.max_new_tokens=4", "stream.max_new_tokens=48",
]  # fmt: skip


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return make_qwen(tmp_path_factory.mktemp("models") / "qwen")


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "continual"
    generate(Order(Space(sizes=(3,), max_number=30), n_train=8, n_test=2), out)
    return out


@pytest.mark.parametrize("name", NUMBERS)
def test_they_have_the_numbers_of_the_reference(name):
    _, recipe = read_recipe(RECIPES / f"{name}.yaml")
    ppo = recipe.build_learner()
    found = (recipe.model.name, recipe.processes, ppo.vllm_tensor_parallel, ppo.prompts, ppo.learning_rate)
    assert (*found, ppo.critic_learning_rate) == NUMBERS[name]
    assert recipe.fsdp
    assert ppo.vllm == "http://localhost:8000"
    assert (ppo.epochs, recipe.stream["rounds"], ppo.advantage, ppo.critic) == (15, 3, "gae", "model")


@pytest.mark.parametrize("name", NUMBERS)
def test_they_start_on_a_tiny_model_in_one_process(name, qwen, problems, tmp_path):
    settings = [*HERE, f"model.name={qwen}", f"stream.paths=[{problems}]"]
    results = run(RECIPES / f"{name}.yaml", tmp_path / "run", settings)
    assert results["complete"]
    lines = [json.loads(text) for text in (tmp_path / "run/iterations.jsonl").read_text().splitlines()]
    iterations = [line for line in lines if line["type"] == "iteration"]
    assert [line["trained"] for line in iterations] == ["0", "1", "2", "3"]
    assert all(line["n_answers"] == 4 for line in iterations)
    assert all({"policy_loss", "value_loss"} <= line.keys() for line in iterations)

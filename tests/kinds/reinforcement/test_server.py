"""Runs whose answers a server draws: what is learned from them, and how they go on after it was away."""

import json

import pytest

from everlearn.errors import ConfigError, TrainingError
from everlearn.learners.ppo import PPO
from everlearn.rl import update
from everlearn.runs import resume, run
from support.recipes import final_weights, lines_of, reinforcement_recipe
from support.runs import assert_same
from support.vllm import serving


@pytest.fixture
def server(llama):
    with serving(llama) as stand_in:
        yield stand_in


def told(out):
    lines = [json.loads(text) for text in (out / "iterations.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def recipe_of(llama, folder, server, **learner):
    learner = {"vllm": server.url, "vllm_seconds": 20, "sampling_dtype": "float32", "updates": 2, **learner}
    return reinforcement_recipe(["replay"], llama, folder, learner=learner)


def test_all_answers_of_a_run_are_the_servers_and_every_first_ratio_is_1(llama, server, tmp_path, monkeypatch):
    ratios, losses = [], update.policy_losses

    def spied(log_p, old, *rest):
        ratios.append((log_p.detach() - old).exp())
        return losses(log_p, old, *rest)

    monkeypatch.setattr(update, "policy_losses", spied)
    monkeypatch.setattr("everlearn.rl.sampler.Sampler.draw", None)  # nothing is drawn here
    run(recipe_of(llama, tmp_path, server), tmp_path / "run")
    assert all((ratio == 1).all() for ratio in ratios[::2])
    assert any((ratio != 1).any() for ratio in ratios[1::2])
    lines = told(tmp_path / "run")
    assert any(line["weight_change"] > 0 for line in lines if line["type"] == "iteration")
    asked = [path for path, _ in server.asked]
    # weights go over once before each of 4 iterations, and once for each measurement
    n_measured = sum(line["type"] == "evaluation" for line in lines)
    assert asked.count("/collective_rpc") == 4 + n_measured
    assert not list((tmp_path / "run").glob(".policy*"))


def test_a_run_whose_server_was_away_goes_on_to_the_same_end(llama, server, tmp_path):
    recipe = recipe_of(llama, tmp_path, server)
    run(recipe, tmp_path / "whole")
    server.asked.clear()
    answer = server.answer

    def dying(path, content):  # in the second iteration of the first task
        n_refreshed = sum(path == "/collective_rpc" for path, _ in server.asked)
        return b"" if path == "/v1/completions" and n_refreshed == 3 else answer(path, content)

    server.answer = dying
    with pytest.raises(TrainingError, match=r"learner.vllm http://.*everlearn resume"):
        run(recipe, tmp_path / "run")
    server.answer = answer
    resume(tmp_path / "run")
    assert_same(final_weights(tmp_path / "run"), final_weights(tmp_path / "whole"))
    assert told(tmp_path / "run") == told(tmp_path / "whole")
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "whole")


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ConfigError, match=r"learner.vllm: is no URL. Got 'node-3:8000'. Write http://host:port"):
        PPO(vllm="node-3:8000")
    with pytest.raises(ConfigError, match=r"learner.vllm_tensor_parallel: is out of range. Got 0"):
        PPO(vllm_tensor_parallel=0)

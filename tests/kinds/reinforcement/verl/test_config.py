"""The configuration: each value of the recipe in its place."""

import pytest

from everlearn.errors import ConfigError
from everlearn.kinds.reinforcement.verl.config import NO_LIMIT, config_of, stages_of
from everlearn.kinds.reinforcement.verl.data import Group
from support.countdown import recipe_with

GROUPS = {"0": Group("0", 25), "+*": Group("plus_times", 40)}


def config_with(**changes):
    recipe = recipe_with(**changes)
    return config_of(recipe, recipe.build_learner(), stages_of(recipe, recipe.build_learner(), GROUPS))


def test_ppo():
    learner = {
        "updates": 2, "minibatches": 4, "micro_tokens": 5000, "gamma": 0.9, "gae_lambda": 0.8, "clip_high": 0.3,
        "value_clip": 0.4, "kl": 0.05, "entropy": 0.01, "betas": [0.9, 0.95], "weight_decay": 0.1, "clip": 0.5,
        "temperature": 0.7,
    }  # fmt: skip
    found = config_with(learner=learner, processes=2, seed=7, track=["wandb"], evaluation={"interval": 6})
    actor, critic, trainer = found["actor_rollout_ref"]["actor"], found["critic"], found["trainer"]
    assert (actor["ppo_mini_batch_size"], actor["ppo_epochs"], actor["ppo_max_token_len_per_gpu"]) == (2, 2, 5000)
    assert (actor["clip_ratio_low"], actor["clip_ratio_high"]) == (0.2, 0.3)
    assert (actor["use_kl_loss"], actor["kl_loss_coef"], actor["entropy_coeff"]) == (True, 0.05, 0.01)
    assert actor["optim"] == {"clip_grad": 0.5, "lr": 1e-6, "weight_decay": 0.1, "betas": [0.9, 0.95]}
    assert (critic["enable"], critic["cliprange_value"]) == (True, 0.4)
    assert critic["optim"] == {"clip_grad": 0.5, "lr": 1e-5, "weight_decay": 0.0}
    assert found["algorithm"] == {"adv_estimator": "gae", "gamma": 0.9, "lam": 0.8}
    assert (found["data"]["train_batch_size"], found["data"]["max_response_length"], found["data"]["seed"]) == (
        8,
        64,
        7,
    )
    rollout = found["actor_rollout_ref"]["rollout"]
    assert (rollout["n"], rollout["temperature"], rollout["dtype"]) == (4, 0.7, "bfloat16")
    assert (trainer["n_gpus_per_node"], trainer["logger"], trainer["test_freq"]) == (2, ["console", "wandb"], 6)


def test_without_limits_and_without_a_critic():
    found = config_with(
        learner={"advantage": "group", "stop_signal": None, "clip": None}, checkpoint={"every_steps": 5}
    )
    assert found["critic"] == {"enable": False}
    assert found["algorithm"]["adv_estimator"] == "grpo"
    assert found["actor_rollout_ref"]["actor"]["optim"]["clip_grad"] == NO_LIMIT
    assert "kl_loss_coef" not in found["actor_rollout_ref"]["actor"]
    assert found["trainer"]["save_freq"] == 5
    assert config_with(learner={"value_clip": None})["critic"]["cliprange_value"] == NO_LIMIT


def test_lora():
    model = config_with(model={"adapter": {"name": "lora", "rank": 8, "targets": ["q_proj"]}})["actor_rollout_ref"]
    assert model["model"] == {
        "path": "some/model", "trust_remote_code": False, "lora_rank": 8, "lora_alpha": 16,
        "target_modules": ["q_proj"],
    }  # fmt: skip
    assert model["rollout"]["load_format"] == "safetensors"
    assert config_with(model={"adapter": None})["critic"]["model"]["target_modules"] == "all-linear"


def test_stages_follow_the_schedule():
    recipe = recipe_with(stream={"order": ["+*", "0", "+*"]})
    stages = stages_of(recipe, recipe.build_learner(), GROUPS)
    # 3 passes, 8 at a time: 15 iterations over 40 problems, 10 over 25
    assert [(one.round, one.group.folder, one.end) for one in stages] == [
        (1, "plus_times", 15), (1, "0", 25), (1, "plus_times", 40),
        (2, "plus_times", 55), (2, "0", 65), (2, "plus_times", 80),
    ]  # fmt: skip
    trainer = config_of(recipe, recipe.build_learner(), stages)["trainer"]
    assert (trainer["total_training_steps"], trainer["save_freq"]) == (15, 5)
    assert trainer["total_epochs"] == 22  # 65 iterations of 3 a pass over group 0; 80 of 5 over the other are fewer
    some = recipe_with(learner={"iterations": 7})
    assert [one.end for one in stages_of(some, some.build_learner(), GROUPS)] == [7, 14, 21, 28]


def test_what_doesnt_fit_is_refused():
    with pytest.raises(ConfigError, match=r"learner\.max_new_tokens: .*Give the tokens of an answer"):
        config_with(learner={"max_new_tokens": None})
    with pytest.raises(
        ConfigError, match=r"learner\.micro_tokens: is less than a question and an answer \(512 \+ 64\)"
    ):
        config_with(learner={"micro_tokens": 500})
    with pytest.raises(ConfigError, match=r"learner\.prompts: task '0' has only 25 problems\. Got 30"):
        config_with(learner={"prompts": 30})

"""verl's configuration, as a recipe has it: what `ppo_trainer` gets in place of its defaults."""

import math
from dataclasses import dataclass
from typing import Any

from everlearn.errors import ConfigError, describe
from everlearn.kinds.reinforcement.recipe import ReinforcementRecipe
from everlearn.kinds.reinforcement.verl.data import Group
from everlearn.kinds.reinforcement.verl.limits import gpus_of, lacks
from everlearn.learners.ppo import PPO
from everlearn.models.load import AdapterConfig, ModelConfig
from everlearn.rl.advantages import GAE, GROUP, LEAVE_ONE_OUT
from everlearn.streams.schedule import apply_schedule
from everlearn.types import Stream, Task

PROMPT_TOKENS = 512  # hold any question, with a chat template
NO_LIMIT = 1e6  # where verl always clips
ESTIMATORS = {GAE: "gae", GROUP: "grpo", LEAVE_ONE_OUT: "rloo"}


@dataclass(frozen=True)
class Stage:
    """One group in one round, which ends when `end` iterations have been done in all."""

    round: int
    group: Group
    end: int


def stages_of(recipe: ReinforcementRecipe, ppo: PPO, groups: dict[str, Group]) -> list[Stage]:
    """Return what is trained one after another, with as many iterations as `everlearn run` would do.

    Raises:
        ConfigError: if a group has fewer problems than an iteration asks.
    """
    empty = Stream("countdown", tuple(Task(name, "prompt", train=[], evaluation=[]) for name in groups))
    steps = apply_schedule(empty, **recipe.schedule_options(), seed=recipe.all_seeds()[0]).steps
    stages, end, a_round = [], 0, len(steps) // recipe.stream.get("rounds", 1)
    for place, task in enumerate(steps):
        group = groups[task.name]
        if group.n_problems < ppo.prompts:
            what = f"task {task.name!r} has only {group.n_problems} problems"
            way_out = f"Give at most {group.n_problems}"
            raise ConfigError(describe("learner.prompts", what, ppo.prompts, way_out))
        end += ppo.iterations or math.ceil(ppo.epochs * group.n_problems / ppo.prompts)
        stages.append(Stage(place // a_round + 1, group, end))
    return stages


def config_of(recipe: ReinforcementRecipe, ppo: PPO, stages: list[Stage]) -> dict[str, Any]:
    """Return a Hydra configuration upon verl's `ppo_trainer`, for the first stage; `folder` is where the data is."""
    tested = dict.fromkeys(f"${{folder}}/data/{stage.group.folder}/test.parquet" for stage in stages)
    return {
        "hydra": {"searchpath": ["pkg://verl.trainer.config"]},
        "defaults": ["ppo_trainer", "_self_"],
        "folder": ".",
        "group": stages[0].group.folder,
        "data": {
            "train_files": ["${folder}/data/${group}/train.parquet"],
            "val_files": list(tested),
            "train_batch_size": ppo.prompts,
            "max_prompt_length": PROMPT_TOKENS,
            "max_response_length": _room(recipe, ppo),
            "seed": recipe.all_seeds()[0],
        },
        "actor_rollout_ref": {"model": _model(recipe.model), "actor": _actor(ppo), "rollout": _rollout(recipe, ppo)},
        "critic": _critic(recipe.model, ppo),
        "algorithm": {"adv_estimator": ESTIMATORS[ppo.advantage], "gamma": ppo.gamma, "lam": ppo.gae_lambda},
        "reward": {"custom_reward_function": {"path": "${folder}/reward.py", "name": "compute_score"}},
        "trainer": _trainer(recipe, ppo, stages),
    }


def _trainer(recipe: ReinforcementRecipe, ppo: PPO, stages: list[Stage]) -> dict[str, Any]:
    passes = [stage.group.n_problems // ppo.prompts for stage in stages]  # iterations in one
    every = recipe.checkpoint.every_steps
    return {
        "n_gpus_per_node": gpus_of(recipe, ppo),
        "nnodes": 1,
        # the number of iterations ends a stage; verl counts all of them in passes over the stage's own group
        "total_training_steps": stages[0].end,
        "total_epochs": max(math.ceil(stage.end / a_pass) for stage, a_pass in zip(stages, passes, strict=True)),
        "save_freq": passes[0] if every is None else max(1, every // (ppo.updates * ppo.minibatches)),
        "max_actor_ckpt_to_keep": 2,  # with 1, a stop in the middle of saving could leave none
        "max_critic_ckpt_to_keep": 2,
        "test_freq": recipe.evaluation.interval,
        "logger": ["console", *recipe.track],
        "default_local_dir": "${folder}/checkpoints",
    }


def _room(recipe: ReinforcementRecipe, ppo: PPO) -> int:
    room = ppo.max_new_tokens or recipe.stream.get("max_new_tokens")
    if room is None:
        raise lacks("learner.max_new_tokens", None, "Give the tokens of an answer, such as 1024")
    if PROMPT_TOKENS + room > ppo.micro_tokens:
        what = f"is less than a question and an answer ({PROMPT_TOKENS} + {room})"
        way_out = f"Give at least {PROMPT_TOKENS + room}"
        raise ConfigError(describe("learner.micro_tokens", what, ppo.micro_tokens, way_out))
    return room


def _model(model: ModelConfig) -> dict[str, Any]:
    adapter = model.adapter or AdapterConfig()
    content: dict[str, Any] = {"path": model.name, "trust_remote_code": model.trust_remote_code}
    if adapter.name == "lora":
        targets = "all-linear" if adapter.targets == "auto" else list(adapter.targets)
        alpha = 2 * adapter.rank if adapter.alpha is None else round(adapter.alpha)
        content |= {"lora_rank": adapter.rank, "lora_alpha": alpha, "target_modules": targets}
    return content


def _actor(ppo: PPO) -> dict[str, Any]:
    kl = {"kl_loss_coef": ppo.kl, "kl_loss_type": "low_var_kl"} if ppo.kl > 0 else {}
    return {
        "ppo_mini_batch_size": ppo.prompts // ppo.minibatches,
        "ppo_epochs": ppo.updates,
        "use_dynamic_bsz": True,
        "ppo_max_token_len_per_gpu": ppo.micro_tokens,
        "clip_ratio": ppo.clip_low,
        "clip_ratio_low": ppo.clip_low,
        "clip_ratio_high": ppo.clip_high,
        "clip_ratio_c": NO_LIMIT,
        "loss_agg_mode": "token-mean",
        "entropy_coeff": ppo.entropy,
        "use_kl_loss": ppo.kl > 0,
        **kl,
        "optim": {
            **_optimizer(ppo),
            "lr": ppo.learning_rate,
            "lr_warmup_steps": ppo.warmup,
            "weight_decay": ppo.weight_decay,
            "betas": [*ppo.betas],
        },
    }


def _rollout(recipe: ReinforcementRecipe, ppo: PPO) -> dict[str, Any]:
    dtype = "float32" if ppo.sampling_dtype == "float32" else "bfloat16"
    return {
        "name": "vllm",
        "n": ppo.samples,
        "temperature": ppo.temperature,
        "dtype": dtype,
        # with a LoRA the base's weights aren't sent over, so vLLM has to load them
        "load_format": "safetensors" if (recipe.model.adapter or AdapterConfig()).name == "lora" else "dummy",
    }


def _critic(model: ModelConfig, ppo: PPO) -> dict[str, Any]:
    if ppo.advantage != GAE:
        return {"enable": False}
    return {
        "enable": True,
        "model": _model(model),
        "ppo_max_token_len_per_gpu": ppo.micro_tokens,
        "cliprange_value": NO_LIMIT if ppo.value_clip is None else ppo.value_clip,
        "optim": {**_optimizer(ppo), "lr": ppo.critic_learning_rate, "weight_decay": 0.0},
    }


def _optimizer(ppo: PPO) -> dict[str, Any]:
    return {"clip_grad": NO_LIMIT if ppo.clip is None else ppo.clip}

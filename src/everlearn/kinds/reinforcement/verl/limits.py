"""What of a recipe verl can do: the rest is refused, with the way out."""

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from everlearn.errors import ConfigError, describe
from everlearn.kinds.reinforcement.recipe import ReinforcementRecipe
from everlearn.kinds.reinforcement.verl.reward import FORMULAS
from everlearn.learners.budget import AUTO
from everlearn.learners.ppo import PPO, VERIFIER
from everlearn.models.load import AdapterConfig, ModelConfig
from everlearn.rl.advantages import GAE
from everlearn.streams.files import FileStream

# fields with a counterpart, and those that say nothing about what is exported
LEARNER = {
    "epochs", "iterations", "prompts", "samples", "temperature", "max_new_tokens", "updates", "minibatches",
    "micro_tokens", "reward", "advantage", "gamma", "gae_lambda", "critic", "critic_learning_rate", "clip_low",
    "clip_high", "value_clip", "kl", "reference", "entropy", "learning_rate", "warmup", "betas", "weight_decay",
    "clip",
    "precision", "sampling_dtype", "stop_success", "stop_signal",
    "reward_seconds", "reward_workers", "replayed", "patience",
    "vllm", "vllm_tensor_parallel", "vllm_seconds", "vllm_folder",
}  # fmt: skip
MODEL = {"name", "adapter", "dtype", "chat", "trust_remote_code", "options", "head"}
ADAPTER = {"name", "rank", "alpha", "targets", "soft_tokens"}


def check_recipe(recipe: ReinforcementRecipe) -> None:
    """Raise ConfigError with the first thing in a recipe that verl can't do, or does differently."""
    learner = recipe.build_learner()
    if not isinstance(learner, PPO):
        raise lacks("learner.name", recipe.learner.get("name"), "Export a recipe with learner: {name: ppo}")
    for where, value in (
        ("strategies", recipe.strategies), ("warm_start", recipe.warm_start),
        ("evaluation.abilities", recipe.evaluation.abilities),
    ):  # fmt: skip
        if value:
            raise lacks(where, value, "Leave it out, or train with everlearn run")
    if len(recipe.all_seeds()) > 1:
        raise lacks("seeds", recipe.seeds, "Export one seed at a time: --set seeds=null --set seed=0")
    for key in ("split_rounds", "per_task", "per_task_eval"):
        if recipe.stream.get(key):
            raise lacks(f"stream.{key}", recipe.stream[key], "Leave it out")
    stream = recipe.build_stream()
    if isinstance(stream, FileStream) and learner.reward == VERIFIER and stream.verifier != "countdown":
        raise lacks("stream.verifier", stream.verifier, "Write verifier: countdown")
    _check_plain("learner", learner, LEARNER)
    _check_plain("model", recipe.model, MODEL)
    _check_model(recipe.model)
    _check_learner(learner)
    _check_batches(learner, gpus_of(recipe, learner))


def gpus_of(recipe: ReinforcementRecipe, ppo: PPO) -> int:
    """Return how many GPUs verl learns and draws on: those of the run, and those of its server if it has one."""
    return recipe.processes + (0 if ppo.vllm is None else ppo.vllm_tensor_parallel)


def _check_model(model: ModelConfig) -> None:
    if model.name in ("pocket", "smollm2", "mlp") or model.name.endswith(".gguf") or ":" in model.name:
        raise lacks("model.name", model.name, "Name a folder or a hub id of a transformers model")
    if model.chat == "never":
        raise lacks("model.chat", model.chat, "Write auto: verl puts each question into the chat template")
    adapter = model.adapter or AdapterConfig()
    if adapter.name not in ("full", "lora"):
        raise lacks("model.adapter.name", adapter.name, "Write full or lora")
    _check_plain("model.adapter", adapter, ADAPTER)


def _check_learner(ppo: PPO) -> None:
    if ppo.learning_rate == AUTO:
        raise lacks("learner.learning_rate", AUTO, "Give a number, such as 1e-6")
    if ppo.reward not in FORMULAS:
        raise lacks("learner.reward", ppo.reward, f"Rewards that can be exported: {', '.join(FORMULAS)}")
    if ppo.advantage == GAE and ppo.critic != "model":
        raise lacks("learner.critic", ppo.critic, "Write critic: model, for verl's critic is a model of its own")
    if ppo.precision != "bf16":
        raise lacks("learner.precision", ppo.precision, "Write bf16, which verl computes in")
    if ppo.kl > 0 and ppo.reference == "last":
        raise lacks("learner.reference", ppo.reference, "Write start: verl compares with the model it began from")
    for name, used in (("stop_success", True), ("stop_signal", ppo.advantage != GAE)):
        if used and getattr(ppo, name) is not None:
            raise lacks(f"learner.{name}", getattr(ppo, name), "Write null: verl never stops a task early")


def _check_batches(ppo: PPO, n_gpus: int) -> None:
    check_share("learner.minibatches", ppo.minibatches, ppo.prompts)
    check_share("processes", n_gpus, ppo.prompts // ppo.minibatches * ppo.samples)


def check_share(where: str, n: int, whole: int) -> None:
    """Raise ConfigError unless `n` are of one size in `whole`: verl deals nothing out unevenly."""
    if whole % n:
        raise ConfigError(describe(where, f"doesn't divide {whole}", n, "Give a divisor of it, for verl"))


def _check_plain(where: str, thing: Any, mapped: Iterable[str]) -> None:
    """Raise ConfigError where a field without a counterpart isn't as it is by default."""
    for f in fields(thing):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if f.init and f.name not in mapped and getattr(thing, f.name) != default:
            raise lacks(f"{where}.{f.name}", getattr(thing, f.name), f"Leave it at {default!r}")


def lacks(where: str, got: Any, way_out: str) -> ConfigError:
    """Return the error that something has no counterpart in verl."""
    return ConfigError(describe(where, "can't be exported to verl", got, way_out))

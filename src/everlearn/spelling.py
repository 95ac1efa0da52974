"""Settings in the usual spelling: one nested mapping, with the names that papers and other libraries have for them.

    {"optimizer": {"type": "adam", "lr": 0.001},
     "continual_strategy": {"packnet": {"enabled": True, "prune_percentage": 0.75}, "lwf": {"alpha": 0.5}},
     "training": {"num_epochs": 5}}

Each name stands for a field of the learner or of the strategy; their own names are taken too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from everlearn.config import build
from everlearn.errors import ConfigError, describe, nearest
from everlearn.registry import find
from everlearn.strategy import Strategy

SECTIONS = ("optimizer", "continual_strategy", "training")


@dataclass(frozen=True)
class Doubled:
    """A field of which the usual value is half: the papers' penalty lacks the factor 1/2 that ours has."""

    field: str


@dataclass(frozen=True)
class Only:
    """A switch of which there is one setting; it stands for no field. `reason`: why not the other, and what then."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Missing:
    """A usual name that has no counterpart. `way_out`: what to write in its place."""

    way_out: str


Meaning = str | Doubled | Only | Missing  # of a usual name; a text is the field

_KEPT = dict.fromkeys(("memory_size", "buffer_size", "mem_size"), "capacity")
_PER_TASK = Missing("Write memory_size, the rows over all tasks: rows a task times the number of tasks")
_FISHER_ROWS = dict.fromkeys(("fisher_samples", "num_samples", "sample_size"), "n_examples")
_SAMPLED = {**_KEPT, "sample_size": "batch_size", "mem_batch_size": "batch_size", "patterns_per_experience": _PER_TASK}
_REPLAYED = {**_KEPT, "replay_ratio": "ratio"}
_TWICE_LAMBDA: dict[str, Meaning] = {"lambda": Doubled("strength"), "lambda_reg": Doubled("strength")}

STRATEGIES: dict[str, dict[str, Meaning]] = {
    "ewc": {"lambda": "strength", "ewc_lambda": "strength", "gamma": "decay", "fisher_type": "fisher", **_FISHER_ROWS},
    "gamma_ewc": {
        **dict.fromkeys(("lambda", "ewc_lambda"), "strength"),
        **dict.fromkeys(("fisher_samples", "num_samples", "sample_size", "n_examples"), "n_samples"),
    },
    "si": {
        "c": Doubled("strength"),
        "si_lambda": Doubled("strength"),
        **_TWICE_LAMBDA,
        **dict.fromkeys(("xi", "eps", "epsilon"), "damping"),
    },
    "mas": {**_TWICE_LAMBDA, "mas_lambda": Doubled("strength"), **_FISHER_ROWS},
    "rwalk": {**_TWICE_LAMBDA, "ewc_lambda": Doubled("strength"), "ewc_alpha": "alpha", "delta_t": "interval",
              "eps": "damping", "epsilon": "damping"},
    "l2": {"lambda": "strength"},
    "lwf": {"alpha": "strength", "lambda": "strength", "lambda_o": "strength", "T": "temperature"},
    "sdft": {"lambda": "strength", "alpha": "strength"},
    "packnet": {
        "prune_percentage": "prune_fraction",
        "prune_ratio": "prune_fraction",
        "prune_proportion": "prune_fraction",
        "use_magnitude_pruning": Only(True, "PackNet keeps the largest weights; leave it out, or use hat"),
        **dict.fromkeys(
            ("retrain_epochs", "post_prune_epochs", "finetune_epochs"),
            Missing("Write retrain_share, the share of a task's steps that comes after pruning"),
        ),
    },
    "hat": {"lambda": "strength", "c": "strength", "smax": "sharpest", "s_max": "sharpest"},
    "gem": {**_SAMPLED, "memory_strength": "margin", "gamma": "margin"},
    "agem": _SAMPLED,
    "ogd": _KEPT,
    "gpm": {"epsilon": "threshold", "eps": "threshold", "num_samples": "n_examples"},
    "replay": {**_REPLAYED, "selection_strategy": "selection", "sampling": "selection"},
    "er_ace": _REPLAYED,
    "der": _REPLAYED,
    "derpp": _REPLAYED,
    "gdumb": _KEPT,
    "ema": {"alpha": "decay", "ema_decay": "decay"},
    "olora": {"lambda": "strength", "lambda_1": "strength", "lambda_2": "norm_strength"},
    "l2p": {"pool_size": "size", "prompt_length": "length", "top_k": "n_chosen", "lambda": "strength"},
    "progressive_prompts": {"prompt_length": "length"},
}  # fmt: skip
OPTIMIZER: dict[str, Meaning] = {"type": "optimizer", "name": "optimizer", "lr": "learning_rate"}
TRAINING: dict[str, Meaning] = {
    "num_epochs": "epochs",
    "gradient_accumulation_steps": "accumulation",
    "max_grad_norm": "clip",
    "gradient_clip": "clip",
    "num_workers": "workers",
}


def learner_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the learner's options out of a nested mapping.

    Raises:
        ConfigError: if a section is unknown, or a setting is given twice.
    """
    _check_mapping("config", config)
    for key in config:
        if key not in SECTIONS:
            way_out = f"{nearest(key, SECTIONS)}Keys: {', '.join(SECTIONS)}"
            raise ConfigError(describe(f"config.{key}", "is unknown", key, way_out))
    optimizer = _translated("config.optimizer", config.get("optimizer", {}), OPTIMIZER)
    training = _translated("config.training", config.get("training", {}), TRAINING)
    return {**optimizer, **training}


def strategies_of(config: Mapping[str, Any]) -> list[Strategy]:
    """Return the strategies that a nested mapping turns on: a section each, on unless it says "enabled": False.

    Raises:
        ConfigError: if a strategy or a key is unknown, has no counterpart here, or a value is out of range.
    """
    where = "config.continual_strategy"
    sections = config.get("continual_strategy", {})
    _check_mapping(where, sections)
    strategies = []
    for name, section in sections.items():
        here = f"{where}.{name}"
        cls = find("strategy", name, here)
        _check_mapping(here, section)
        enabled = section.get("enabled", True)
        if not isinstance(enabled, bool):
            raise ConfigError(describe(f"{here}.enabled", "is neither on nor off", enabled, "Write True or False"))
        usual = STRATEGIES.get(name, {})
        options = _translated(here, {key: value for key, value in section.items() if key != "enabled"}, usual)
        own = {f.name for f in fields(cls) if f.init}
        offered = [key for key, meaning in usual.items() if not isinstance(meaning, Missing) and key not in own]
        strategy = build("strategy", {"name": name, **options}, here, also=("enabled", *offered))
        if enabled:
            strategies.append(strategy)
    return strategies


def _translated(where: str, section: Mapping[str, Any], usual: Mapping[str, Meaning]) -> dict[str, Any]:
    """Return a section with each usual name replaced by the field that it stands for; other keys stay."""
    _check_mapping(where, section)
    options: dict[str, Any] = {}
    given: dict[str, str] = {}
    for key, value in section.items():
        meaning = usual.get(key, key)
        if isinstance(meaning, Missing):
            raise ConfigError(describe(f"{where}.{key}", "has no counterpart here", value, meaning.way_out))
        if isinstance(meaning, Only):
            if value is not meaning.value:
                raise ConfigError(describe(f"{where}.{key}", "can't be switched", value, meaning.reason))
            continue
        field = meaning.field if isinstance(meaning, Doubled) else meaning
        if field in options:
            raise ConfigError(
                describe(f"{where}.{key}", f"says the same as {given[field]}", value, "Write one of the two")
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        options[field] = 2 * value if isinstance(meaning, Doubled) and is_number else value
        given[field] = key
    return options


def _check_mapping(where: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(describe(where, "must be a mapping", value, 'Write {"key": value, ...}'))

"""What a home is made with: its model, and how it learns where a learning doesn't say otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everlearn.config import CheckpointConfig, EvaluationConfig, build_learner, build_strategies, from_mapping
from everlearn.errors import ConfigError, describe
from everlearn.evaluation.probes import SELF
from everlearn.learners.budget import AUTO
from everlearn.models.load import ModelConfig
from everlearn.strategy import Strategy

_ONLY_IN_RECIPES = ("stream", "seeds", "processes", "track")
DEFAULT_ABILITIES = (SELF,)  # of new homes; those made before watch none
_NEED_ALL_ROWS = ("joint", "cumulative")


@dataclass(frozen=True)
class Settings:
    """The keys of a recipe that a home knows; `model` and `seed` are fixed when it is made, the others are defaults.

    seed: of adapters, heads and the order of rows.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    learner: dict[str, Any] = field(default_factory=lambda: {"name": "sft", "epochs": AUTO})
    strategies: list[str | dict[str, Any]] = field(default_factory=lambda: ["replay", "ewc"])
    seed: int = 0
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    device: str = "auto"

    def __post_init__(self) -> None:
        self.build_learner()
        self.build_strategies()

    def build_learner(self) -> Any:
        """Return the learner; without a number of epochs it takes as many as a task needs."""
        return build_learner({"epochs": AUTO, **self.learner})

    def build_strategies(self) -> list[Strategy]:
        """Return new strategies.

        Raises:
            ConfigError: if one is unknown, stands twice, or needs the rows of all tasks, which a home doesn't keep.
        """
        strategies = build_strategies(self.strategies)
        for strategy in strategies:
            if strategy.name in _NEED_ALL_ROWS:
                way_out = "Use replay, which keeps rows of its own, or ewc"
                raise ConfigError(
                    describe("strategies", "a home doesn't keep all earlier training rows", strategy.name, way_out)
                )
        return strategies


def settings_from(recipe: Mapping[str, Any]) -> Settings:
    """Return the settings in a recipe's mapping; what only a run over a stream needs is left out.

    Raises:
        ConfigError: if anything in it is unknown, of the wrong type or out of range.
    """
    known = {key: value for key, value in recipe.items() if key not in _ONLY_IN_RECIPES}
    if "seed" in known and known["seed"] is None:
        known.pop("seed")
    if isinstance(known.setdefault("evaluation", {}), Mapping):
        known["evaluation"] = {"abilities": list(DEFAULT_ABILITIES), **known["evaluation"]}
    return from_mapping(Settings, known, "")

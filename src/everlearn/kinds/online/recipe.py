"""The settings of an online run, read strictly from a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from everlearn.config import CheckpointConfig, build, build_strategies, check_seeds, read_config
from everlearn.errors import ConfigError, check_number, describe
from everlearn.learners.drift import DriftConfig
from everlearn.learners.online import OnlineLearner
from everlearn.models.load import ModelConfig
from everlearn.streams.source import Source

BY_TYPE = "type"
STANDARD_INPUT = "-"  # as a source's path
EASY = {"name": "arena", "difficulty": 1}
REHEARSAL = {"name": "replay", "ratio": 7}


@dataclass(frozen=True)
class HeldOutConfig:
    """n: problems that are never learned from; interval: episodes between two scorings; batch_size: scored at once."""

    n: int = 200
    interval: int = 20
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("n", "interval", "batch_size"):
            check_number(f"evaluation.{name}", vars(self)[name], low=1)


@dataclass(frozen=True)
class OnlineRecipe:
    """All that an online run needs.

    source: names a registered source of problems and gives its options; without one, the arena's of difficulty 1.
    strategies: unless told otherwise seven earlier problems are learned again beside each new one.
    episodes: how many problems, at most. boundary: after how many of them the strategies consolidate (a task ends); or
        type: where the problems' type changes. drift: how drift is noticed, and what follows.
    keep_checkpoints: of the adapters saved at each scoring, the newest so many are kept. track: tensorboard, wandb,
        mlflow.
    """

    source: dict[str, Any] = field(default_factory=lambda: dict(EASY))
    model: ModelConfig = field(default_factory=ModelConfig)
    learner: OnlineLearner = field(default_factory=OnlineLearner)
    strategies: list[str | dict[str, Any]] = field(default_factory=lambda: [dict(REHEARSAL)])
    episodes: int = 80
    boundary: int | str = 5
    drift: DriftConfig | None = None
    evaluation: HeldOutConfig = field(default_factory=HeldOutConfig)
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(every_s=30.0))
    keep_checkpoints: int = 5
    seed: int | None = None
    seeds: list[int] = field(default_factory=list)
    device: str = "auto"
    track: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_number("episodes", self.episodes, low=1)
        check_number("keep_checkpoints", self.keep_checkpoints, low=1)
        if isinstance(self.boundary, str) and self.boundary != BY_TYPE:
            raise ConfigError(describe("boundary", "is unknown", self.boundary, "Give a number of episodes, or type"))
        if not isinstance(self.boundary, str):
            check_number("boundary", self.boundary, low=1)
        check_seeds(self.seed, self.seeds)
        if len(self.all_seeds()) > 1 and self.source.get("path") == STANDARD_INPUT:
            way_out = "Give one seed, or a file"
            raise ConfigError(describe("seeds", "standard input can be read once only", self.all_seeds(), way_out))
        self.build_source()
        build_strategies(self.strategies)

    def all_seeds(self) -> list[int]:
        """Return the seeds to run."""
        return self.seeds or [self.seed or 0]

    def build_source(self) -> Source:
        """Return the source of problems, its options checked."""
        return build("source", {"name": "arena", **self.source}, "source")

    def as_mapping(self) -> dict[str, Any]:
        """Return the recipe as the mapping that a file of it holds."""
        content = asdict(self)
        content["learner"] = {name: value for name, value in content["learner"].items() if not name.endswith("_")}
        return content

    def build_learner(self) -> OnlineLearner:
        """Return a new learner, which has seen nothing yet."""
        options = {name: value for name, value in vars(self.learner).items() if not name.endswith("_")}
        learner = OnlineLearner(**options)
        if self.boundary != BY_TYPE:
            learner.traits = (*learner.traits, "one_stream")
        return learner


def load_online_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> OnlineRecipe:
    """Return the recipe in a YAML file (or mapping), with `a.b=value` overrides; strict, as `load_recipe` is."""
    return read_config(OnlineRecipe, source, overrides, "online")

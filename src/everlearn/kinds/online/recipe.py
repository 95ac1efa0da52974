"""The settings of an online run, read strictly from a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from everlearn.config import CheckpointConfig, build, build_strategies, check_seeds, read_config
from everlearn.errors import ConfigError, check_number, describe
from everlearn.evaluation.prequential import SCORES
from everlearn.learners.drift import DriftConfig
from everlearn.learners.online import OnlineLearner
from everlearn.models.load import ModelConfig
from everlearn.streams.feeds import STANDARD_INPUT, LiveSource
from everlearn.streams.source import Source

BY_TYPE = "type"
EASY = {"name": "arena", "difficulty": 1}
# what is left open, by whether rows are problems or have labels
OF_PROBLEMS: dict[str, Any] = {"episodes": 80, "boundary": 5, "interval": 20, "ratio": 7}
OF_LABELLED: dict[str, Any] = {"episodes": None, "boundary": 100, "interval": 100, "ratio": 1}


@dataclass(frozen=True)
class HeldOutConfig:
    """n: problems that are never learned from; batch_size: scored at once.

    interval: episodes between two scorings; null: 20, of labelled rows 100.
    fading: of prequential scores, see `everlearn.evaluation.prequential`; about the last 1 / (1 - fading) rows count.
    answers: keep what was asked and answered, in the episodes and the scorings, beside whether it was right.
    """

    n: int = 200
    interval: int | None = None
    batch_size: int = 32
    fading: float = 0.998
    answers: bool = True

    def __post_init__(self) -> None:
        for name in ("n", "interval", "batch_size"):
            if vars(self)[name] is not None:
                check_number(f"evaluation.{name}", vars(self)[name], low=1)
        check_number("evaluation.fading", self.fading, above=0, high=1)


@dataclass(frozen=True)
class OnlineRecipe:
    """All that an online run needs.

    source: names a registered source of problems, or of labelled rows, and gives its options; without one, the arena's
        of difficulty 1.
    strategies: null: seven earlier problems are learned again beside each new one; of labelled rows one.
    episodes: how many rows, at most; null: 80, of labelled rows all. boundary: after how many of them the strategies
        consolidate (a task ends), null: 5, of labelled rows 100; or type: where the rows' type changes.
    drift: how drift is noticed, and what follows.
    keep_checkpoints: of the adapters saved at each scoring, the newest so many are kept. track: tensorboard, wandb,
        mlflow.
    """

    source: dict[str, Any] = field(default_factory=lambda: dict(EASY))
    model: ModelConfig = field(default_factory=ModelConfig)
    learner: OnlineLearner = field(default_factory=OnlineLearner)
    strategies: list[str | dict[str, Any]] | None = None
    episodes: int | None = None
    boundary: int | str | None = None
    drift: DriftConfig | None = None
    evaluation: HeldOutConfig = field(default_factory=HeldOutConfig)
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(every_s=30.0))
    keep_checkpoints: int = 5
    seed: int | None = None
    seeds: list[int] = field(default_factory=list)
    device: str = "auto"
    track: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.episodes is not None:
            check_number("episodes", self.episodes, low=1)
        check_number("keep_checkpoints", self.keep_checkpoints, low=1)
        if isinstance(self.boundary, str) and self.boundary != BY_TYPE:
            raise ConfigError(describe("boundary", "is unknown", self.boundary, "Give a number of episodes, or type"))
        if isinstance(self.boundary, int):
            check_number("boundary", self.boundary, low=1)
        check_seeds(self.seed, self.seeds)
        if len(self.all_seeds()) > 1 and self.source.get("path") == STANDARD_INPUT:
            way_out = "Give one seed, or a file"
            raise ConfigError(describe("seeds", "standard input can be read once only", self.all_seeds(), way_out))
        self.build_source()
        build_strategies(self.strategies or [])

    def settled(self, source: Source) -> "OnlineRecipe":
        """Return the recipe with what it leaves open, for rows as the source's are."""
        given = OF_LABELLED if is_labelled(source) else OF_PROBLEMS
        changes: dict[str, Any] = {name: given[name] for name in ("episodes", "boundary") if vars(self)[name] is None}
        if self.strategies is None:
            changes["strategies"] = [{"name": "replay", "ratio": given["ratio"]}]
        if self.evaluation.interval is None:
            changes["evaluation"] = replace(self.evaluation, interval=given["interval"])
        if is_labelled(source):
            changes["source"] = {**self.source, "kind": source.kind}
            changes["model"] = replace(self.model, head="shared")  # rows don't tell a task: one head for all
        return replace(self, **changes)

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


def is_labelled(source: Source) -> bool:
    """Tell whether a source's rows have labels or tags, and are scored as they come."""
    return isinstance(source, LiveSource) and source.kind in SCORES


def load_online_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> OnlineRecipe:
    """Return the recipe in a YAML file (or mapping), with `a.b=value` overrides; strict, as `load_recipe` is."""
    return read_config(OnlineRecipe, source, overrides, "online")

"""What a meta-learning recipe says: tasks to learn from, tasks held out, and how the learned start is judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from everlearn.config import CheckpointConfig, build, check_seeds, read_config
from everlearn.errors import ConfigError, check_choice, check_number, describe, nearest
from everlearn.learners.meta.config import MetaConfig
from everlearn.models.load import ModelConfig
from everlearn.streams.loading import TaskOptions
from everlearn.streams.schedule import checked_stream
from everlearn.types import Task

STARTS = ("plain", "joint", "meta")
OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class MetaEvaluation:
    """How the starts are compared on a held-out task.

    Args:
        steps: numbers of gradient steps after which each start is scored.
        n_rows: training rows of the held-out task that the steps are taken on; null: learner.n_support.
        n_draws: how often such rows are drawn; the score of a seed is the mean over the draws.
        rates: {sgd or adamw: learning rates} that the steps from each start are tried with; those from the learned
            start by its own inner loop as well. What makes the answers of the task's validation rows likeliest counts
            (where it has none, of its evaluation rows).
        batch_size: rows scored at once.
    """

    steps: list[int] = field(default_factory=lambda: [0, 1, 5])
    n_rows: int | None = None
    n_draws: int = 1
    rates: dict[str, list[float]] = field(
        default_factory=lambda: {"sgd": [0.03, 0.1, 0.3, 1.0], "adamw": [0.001, 0.003, 0.01]}
    )
    batch_size: int = 64

    def __post_init__(self) -> None:
        for i, n_steps in enumerate(self.steps):
            check_number(f"evaluation.steps[{i}]", n_steps, low=0)
        if not self.steps or sorted(set(self.steps)) != self.steps:
            way_out = "Write each number once, smallest first"
            raise ConfigError(describe("evaluation.steps", "don't rise", self.steps, way_out))
        if self.n_rows is not None:
            check_number("evaluation.n_rows", self.n_rows, low=1)
        check_number("evaluation.n_draws", self.n_draws, low=1)
        check_number("evaluation.batch_size", self.batch_size, low=1)
        for name, values in self.rates.items():
            check_choice("evaluation.rates", name, OPTIMIZERS)
            for i, rate in enumerate(values):
                check_number(f"evaluation.rates.{name}[{i}]", rate, above=0)
        if not any(self.rates.values()):
            way_out = "Give at least one rate, such as {sgd: [0.1]}"
            raise ConfigError(describe("evaluation.rates", "are empty", self.rates, way_out))


@dataclass(frozen=True)
class MetaRecipe:
    """All that meta-learning needs.

    stream: a registered stream; its tasks but those of `held_out` are learned from.
    n_steps: outer steps, of the algorithm and of the joint control, which uses Adam with `joint_lr`.
    starts: what is compared: plain (the model as it is), joint (trained on the same tasks), meta.
    """

    stream: dict[str, Any]
    held_out: list[str]
    n_steps: int
    learner: MetaConfig = field(default_factory=MetaConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    starts: list[str] = field(default_factory=lambda: list(STARTS))
    joint_lr: float = 1e-3
    evaluation: MetaEvaluation = field(default_factory=MetaEvaluation)
    seed: int | None = None
    seeds: list[int] = field(default_factory=list)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    device: str = "auto"
    track: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_seeds(self.seed, self.seeds)
        check_number("n_steps", self.n_steps, low=1)
        check_number("joint_lr", self.joint_lr, above=0)
        for name in self.starts:
            check_choice("starts", name, STARTS)
        for name, values in (("starts", self.starts), ("held_out", self.held_out)):
            if not values or len(set(values)) != len(values):
                raise ConfigError(describe(name, "is empty or repeats", values, "Write each once, and at least one"))
        build("stream", self.stream, "stream")

    def all_seeds(self) -> list[int]:
        """Return the seeds to run."""
        return self.seeds or [self.seed or 0]

    def tasks(self) -> tuple[list[Task], list[Task]]:
        """Return the tasks to learn from, and those held out; none trains on an evaluation item of any.

        Files are split so that there are validation rows, which step sizes are chosen by.
        """
        stream = build("stream", self.stream, "stream")
        if isinstance(stream, TaskOptions):
            stream = replace(stream, wants_validation=True)
        tasks = {task.name: task for task in checked_stream(stream.build())}
        for name in self.held_out:
            if name not in tasks:
                way_out = f"{nearest(name, tasks)}Tasks: {', '.join(tasks)}"
                raise ConfigError(describe("held_out", "is no task of the stream", name, way_out))
        if len(self.held_out) == len(tasks):
            raise ConfigError(describe("held_out", "leaves no task to learn from", self.held_out, "Hold out fewer"))
        return [t for t in tasks.values() if t.name not in self.held_out], [tasks[name] for name in self.held_out]

    def learner_of(self, start: str) -> MetaConfig:
        """Return how a start is learned, and how steps from it are taken."""
        if start == "meta":
            return self.learner
        same = ("inner_lr", "adaptation_steps", "meta_batch_size", "n_support", "n_query")
        shared = {name: vars(self.learner)[name] for name in same}
        rows = self.learner.inner_rows  # of a step on a held-out task: the same from every start
        return MetaConfig(algorithm="joint", outer_lr=self.joint_lr, inner_batch_size=rows, **shared)


def load_meta_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> MetaRecipe:
    """Return the recipe in a YAML file (or mapping), with `a.b=value` overrides; values are read as YAML.

    Raises:
        ConfigError: if the file can't be read, or anything in it is unknown, of the wrong type or out of range.
    """
    return read_config(MetaRecipe, source, overrides, "meta")

"""The settings of a run that learns by reinforcement, read strictly from a recipe."""

from dataclasses import dataclass, field
from typing import Any, Literal

from everlearn.config import EvaluationConfig, Recipe, build
from everlearn.errors import check_choice, check_number
from everlearn.learners.budget import AUTO

WHEN = ("start", "task")


@dataclass(frozen=True)
class PolicyEvaluation(EvaluationConfig):
    """What is measured, and how often.

    future: the tasks to come are scored too, so that each one's own start is known.
    samples: answers drawn to each held-out problem at temperature 1, beside the likeliest one. interval: iterations
        between two such measurements in mid-task; there is one after each task too.
    """

    future: bool = True
    samples: int = 1
    interval: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("evaluation.samples", self.samples, low=1)
        check_number("evaluation.interval", self.interval, low=1)


@dataclass(frozen=True)
class WarmStart:
    """A little supervised learning first, from right answers: a small model finds no reward from nothing.

    rows: of each task, the first so many of its training rows. when: start, once and over all tasks; or task, before
    each task its own.
    """

    rows: int = 50
    epochs: int = 4
    batch_size: int = 16
    learning_rate: float | Literal["auto"] = AUTO
    when: str = "start"

    def __post_init__(self) -> None:
        for name in ("rows", "epochs", "batch_size"):
            check_number(f"warm_start.{name}", getattr(self, name), low=1)
        check_choice("warm_start.when", self.when, WHEN)
        if self.learning_rate != AUTO:
            check_number("warm_start.learning_rate", self.learning_rate, above=0)


@dataclass(frozen=True)
class ReinforcementRecipe(Recipe):
    """All that a run needs; as a supervised one's (`everlearn.config.Recipe`), but for these.

    learner: ppo unless told otherwise; sft learns the right answers, to compare. warm_start: null for none.
    """

    learner: dict[str, Any] = field(default_factory=lambda: {"name": "ppo"})
    evaluation: PolicyEvaluation = field(default_factory=PolicyEvaluation)
    warm_start: WarmStart | None = None

    def build_learner(self) -> Any:
        """Return a new learner, which has seen nothing yet."""
        return build("learner", {"name": "ppo", **self.learner}, "learner")

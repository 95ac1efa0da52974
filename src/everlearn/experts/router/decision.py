"""What a router decides, and between which experts."""

from dataclasses import asdict, dataclass
from typing import Any

ACTIONS = ("reuse", "adapt", "fork", "compose", "create")


@dataclass(frozen=True)
class Candidate:
    """An expert that could do.

    Attributes:
        task: whose prototype is nearest. similarity: to it.
        p: chance that reuse is as good as a new expert. ucb: p and a bonus for what is not known. None where a fixed
            rule decides.
        uses: of the expert so far.
        features: what p is estimated from, by name.
    """

    expert: int
    task: str
    similarity: float
    p: float | None
    ucb: float | None
    uses: int
    features: dict[str, float]

    @property
    def score(self) -> float:
        """What is compared with the bar: p, or the similarity where a fixed rule decides."""
        return self.similarity if self.p is None else self.p


@dataclass(frozen=True)
class Decision:
    """What to do with a task.

    Attributes:
        action: reuse (as it is), adapt (train it on), fork (train a copy of it), compose (the candidates' weighted sum)
            or create (from nothing).
        expert: that is reused, adapted or forked; None for the others.
        candidates: best first. The first is the one that the action is about.
        tau: the bar for p (or the similarity) at that time.
        trial: reuse is to be tried beside a new expert, and `Router.learned` told what came of it.
        trial_chance: that this task had to become a trial.
        reason: one sentence for people.
    """

    action: str
    expert: int | None
    candidates: tuple[Candidate, ...]
    tau: float
    trial: bool
    trial_chance: float
    reason: str

    @property
    def features(self) -> dict[str, float]:
        """What the calibration learns from, together with the outcome; empty where there is no candidate."""
        return self.candidates[0].features if self.candidates else {}

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON value, for a log."""
        return asdict(self) | {"candidates": [asdict(candidate) for candidate in self.candidates]}

"""What an online loop does when its learner's error shows that the stream has changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everlearn.config import build
from everlearn.errors import check_choice, check_number
from everlearn.learners.detectors import DriftDetector, error_of_loss

ACTIONS = ("consolidate", "raise_rate", "boundary")


@dataclass(frozen=True)
class DriftConfig:
    """How drift is noticed and what follows, as recipes give it.

    Args:
        detector: names a registered detector and gives its options.
        watch: error (of the answer before learning, 0 or 1; of tags the share that is wrong), or loss (as
            1 - exp(-loss)).
        actions, rate_factor, n_steps: as in `DriftResponse`.
    """

    detector: Mapping[str, Any] = field(default_factory=lambda: {"name": "adwin"})
    watch: str = "error"
    actions: tuple[str, ...] = ("consolidate",)
    rate_factor: float = 3.0
    n_steps: int = 50

    def __post_init__(self) -> None:
        check_choice("drift.watch", self.watch, ("error", "loss"))
        self.response(0)

    def response(self, seed: int) -> "DriftResponse":
        """Return a response that has seen nothing yet."""
        detector = DriftDetector(build("detector", self.detector, "drift.detector"), seed=seed)
        return DriftResponse(detector, self.actions, self.rate_factor, self.n_steps)

    def error_of(self, right: float | None, loss: float) -> float:
        """Return what is watched of an episode, in 0..1: of one that is neither right nor wrong, the loss."""
        return error_of_loss(loss) if self.watch == "loss" or right is None else 1.0 - float(right)


@dataclass(frozen=True)
class Reaction:
    """What the loop is asked to do after an episode.

    Attributes:
        drift: a drift was detected in this episode.
        end_segment: end the segment now, so that every strategy's `end_task` consolidates.
        task: number of the task that the next episode belongs to; rises with each boundary that was opened.
        rate_factor: what the learning rate of the next step is multiplied by.
    """

    drift: bool = False
    end_segment: bool = False
    task: int = 0
    rate_factor: float = 1.0


@dataclass
class DriftResponse:
    """Turns detections into reactions; called once an episode.

        reaction = response.observe(error)          # the error before the episode was learned
        if reaction.end_segment: ...                # end_task, then begin_task of the next segment
        for group in optimizer.param_groups: group["lr"] = rate * reaction.rate_factor

    Args:
        detector: what is asked.
        actions: any of `consolidate` (end the segment: EWC and its like anchor at what was learned until now),
            `boundary` (end the segment, and call what follows a new task, so that methods that need tasks work where
            the stream tells none) and `raise_rate`.
        rate_factor: how much the learning rate is multiplied by right after a drift.
        n_steps: episodes after which the rate is back where it was, falling evenly; a new drift starts it again.

    Cost: that of the detector. A drift is known some episodes after it came (docs/drift.md), so what is anchored then
        has begun to learn the new concept.
    """

    detector: DriftDetector
    actions: tuple[str, ...] = ("consolidate",)
    rate_factor: float = 3.0
    n_steps: int = 50
    n_drifts: int = field(default=0, init=False)
    _since_drift: int | None = field(default=None, init=False, repr=False)  # episodes, None before the first drift

    def __post_init__(self) -> None:
        for action in self.actions:
            check_choice("drift.actions", action, ACTIONS)
        check_number("drift.rate_factor", self.rate_factor, above=0)
        check_number("drift.n_steps", self.n_steps, low=1)

    def observe(self, error: float) -> Reaction:
        """Take the error of an episode, in 0..1, and return what is to be done before the next one.

        Raises:
            ConfigError: if the error is outside 0..1.
        """
        drift = self.detector.update(error)
        if drift:
            self.n_drifts += 1
            self._since_drift = 0
        elif self._since_drift is not None:
            self._since_drift += 1
        return Reaction(
            drift=drift,
            end_segment=drift and ("consolidate" in self.actions or "boundary" in self.actions),
            task=self.n_drifts if "boundary" in self.actions else 0,
            rate_factor=self._factor(),
        )

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs, as JSON."""
        return {"detector": self.detector.state(), "n_drifts": self.n_drifts, "since_drift": self._since_drift}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the response that returned `state` stood.

        Raises:
            StateError: if its detector was another one.
        """
        self.detector.load_state(state["detector"])
        self.n_drifts, self._since_drift = state["n_drifts"], state["since_drift"]

    def _factor(self) -> float:
        """Return 1 + (rate_factor − 1)·(1 − k / n_steps), k episodes after the drift."""
        if "raise_rate" not in self.actions or self._since_drift is None:
            return 1.0
        return 1.0 + (self.rate_factor - 1.0) * max(0.0, 1.0 - self._since_drift / self.n_steps)

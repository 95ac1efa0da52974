"""The router: what to do with a task, given the library's prototypes and what came of earlier decisions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from everlearn.errors import ConfigError, describe
from everlearn.experts.profiles import Prototypes
from everlearn.experts.router.calibration import FEATURES, Calibration, calibrated
from everlearn.experts.router.config import FORCED, RouterConfig
from everlearn.experts.router.decision import Candidate, Decision
from everlearn.experts.router.exploring import posterior, trial_chance, upper_bound
from everlearn.experts.router.nearest import Known
from everlearn.experts.router.outcomes import Outcomes
from everlearn.experts.router.threshold import WINDOW, capped, moved
from everlearn.experts.signals.context import FEATURES as CONTEXT
from everlearn.experts.signals.joining import BLOCKS, check_dimension
from everlearn.seeds import generator_for

REFIT = 1.05  # the calibration is fitted anew when so many times as many outcomes are known
FORK_ABOVE = 0.5


class Router:
    """Decides whether an expert of a library will do for a task. It holds no model.

    `decide` changes nothing; `learned` is told each decision that was carried out, with what came of it. The same
    state, seed and inputs give the same decision.

    Args:
        blocks: {text, gradient, context: how many numbers}, as `Signals.blocks`.
        seed: of which tasks become trials, and of the random similarity.

    Attributes:
        tau: the adaptive threshold, uncapped. n_decisions: that were carried out. outcomes: what came of them.

    Raises:
        ConfigError: if the blocks can't be a signal's.
    """

    def __init__(self, config: RouterConfig, blocks: Mapping[str, int], seed: int = 0):
        _check_blocks(blocks)
        self.config, self.blocks, self.seed = config, dict(blocks), seed
        self.tau = 1 - config.risk  # so that with p as it should be no more than `risk` is false at first
        self.n_decisions = 0
        self.outcomes = Outcomes()
        self._calibration, self._n_fitted = calibrated(self.outcomes.features, self.outcomes.right), 0
        self._recent = np.zeros((0, len(FEATURES)))
        self._known: tuple[Prototypes, Known] | None = None

    @property
    def bar(self) -> float:
        """What p, or with a fixed threshold the similarity, is compared with now."""
        if self.config.threshold is not None:
            return self.config.threshold
        return capped(self.tau, self._calibration.p(self._recent))

    def decide(
        self, vector: torch.Tensor, prototypes: Prototypes, uses: Mapping[int, int], *, true_expert: int | None = None
    ) -> Decision:
        """Return what to do with a task.

        Args:
            vector: its signal, [dimension]. prototypes: of the experts in use; the same object as before costs less.
            uses: {expert: how often it was chosen}. true_expert: for the oracle; None: there is none.

        Raises:
            ConfigError: if the dimension is another than the router's.
        """
        check_dimension(vector, self.blocks, "router: signal")
        if self.config.similarity in FORCED:
            return _forced(self.config.similarity, prototypes.experts, true_expert)
        at = self.bar
        candidates = self._candidates(vector, self._prepared(prototypes), uses, at)
        few = self.config.threshold is None and len(set(prototypes.experts)) < self.config.bootstrap
        action, reason = self._action(candidates, at, few=few)
        chance = self._trial_chance(few=few)
        trial = action == "reuse" and self._draw() < chance
        expert = candidates[0].expert if action in ("reuse", "adapt", "fork") else None
        return Decision(action, expert, tuple(candidates), at, trial, chance, reason + " Both are tried." * trial)

    def learned(self, decision: Decision, outcome: bool | None = None) -> None:
        """Take note of a decision that was carried out, once.

        Args:
            outcome: whether its first candidate, used as it is, was as good as a new expert; None: not known. The
                calibration learns from all outcomes; tau moves with those of decisions to reuse alone, for what it
                holds is their rate, and what lies below the bar would push it up and up.
        """
        if decision.candidates and decision.candidates[0].features:
            best = decision.candidates[0]
            features = np.array([best.features[name] for name in FEATURES])
            self._recent = np.vstack([self._recent, features])[-WINDOW:]
            if outcome is not None:
                self.outcomes = self.outcomes.having(best.expert, features, outcome)
                if len(self.outcomes) >= REFIT * self._n_fitted:
                    self._calibration = calibrated(self.outcomes.features, self.outcomes.right)
                    self._n_fitted = len(self.outcomes)
        if decision.action == "reuse" and outcome is not None:
            self.tau = moved(self.tau, not outcome, self.config.risk, self.config.step)
        elif self.config.risk_of == "tasks" and decision.action != "reuse" and self._draw() < decision.trial_chance:
            self.tau = moved(self.tau, False, self.config.risk, self.config.step)
        self.n_decisions += 1

    def similarities(self, vectors: torch.Tensor, prototypes: Prototypes) -> torch.Tensor:
        """Return how near signals [n, dimension] are to the experts, by number, [n, experts].

        Raises:
            ConfigError: if the dimension is another than the router's.
        """
        check_dimension(vectors, self.blocks, "router: signals")
        return torch.from_numpy(self._prepared(prototypes).similarities(vectors))

    def state(self) -> dict[str, Any]:
        """Return all that it has learned, for `Library.keep_router`: tensors and JSON values."""
        return {
            "similarity": self.config.similarity, "blocks": dict(self.blocks), "tau": self.tau,
            "n_decisions": self.n_decisions, "n_fitted": self._n_fitted, "outcomes": self.outcomes.state(),
            "calibration": self._calibration.state(), "recent": torch.from_numpy(self._recent),
        }  # fmt: skip

    @classmethod
    def load(cls, config: RouterConfig, blocks: Mapping[str, int], state: Mapping[str, Any], seed: int = 0) -> "Router":
        """Return a router that goes on from a state.

        Raises:
            ConfigError: if the state is of a router with other blocks, with what differs.
        """
        router = cls(config, blocks, seed)
        if state["blocks"] != router.blocks:
            way_out = "Measure signals as the library's profiles were, or begin a new library"
            raise ConfigError(
                describe("router: blocks", f"its state has {_told(state['blocks'])}", _told(blocks), way_out)
            )
        router.tau, router.n_decisions, router._n_fitted = state["tau"], state["n_decisions"], state["n_fitted"]
        router.outcomes, router._recent = Outcomes.from_state(state["outcomes"]), state["recent"].numpy()
        router._calibration = Calibration.from_state(state["calibration"])
        return router

    def _prepared(self, prototypes: Prototypes) -> Known:
        if self._known is None or self._known[0] is not prototypes:
            self._known = prototypes, Known(prototypes, self.blocks, self._weights())
        return self._known[1]

    def _weights(self) -> dict[str, float]:
        if self.config.similarity == "text":
            return {name: float(name == "text") for name in self.blocks}
        return {name: self.config.weights.get(name, 1.0) for name in self.blocks}

    def _candidates(self, vector: torch.Tensor, known: Known, uses: Mapping[int, int], at: float) -> list[Candidate]:
        """Return the nearest experts; of those whose p reaches the bar, and then of the others, the highest bound
        first."""  # fmt: skip
        found = known.nearest(vector, self.config.top_k + 1)  # one more for the margin
        highest = [similarity for _, similarity, _ in found[:2]] + [0.0, 0.0]
        candidates = []
        for rank, (expert, similarity, row) in enumerate(found[: self.config.top_k]):
            features = dict(zip(FEATURES, (
                similarity, similarity - highest[1 if rank == 0 else 0], math.log1p(uses.get(expert, 0)),
                known.context(vector, row), math.log(len(known.experts)),
            ), strict=True))  # fmt: skip
            candidate = Candidate(expert, known.tasks[row], similarity, None, None, uses.get(expert, 0), features)
            candidates.append(candidate if self.config.threshold is not None else self._rated(candidate))
        if self.config.threshold is None:
            candidates.sort(key=lambda one: (one.p >= at, one.ucb), reverse=True)
        return candidates

    def _rated(self, candidate: Candidate) -> Candidate:
        own = self.outcomes.like(candidate.expert, candidate.similarity)
        p = float(self._calibration.p(np.array([list(candidate.features.values())]))[0])
        p = posterior(p, int(own.sum()), len(own))
        return replace(candidate, p=p, ucb=upper_bound(p, len(own), len(self.outcomes), self.config.explore))

    def _action(self, candidates: Sequence[Candidate], at: float, *, few: bool) -> tuple[str, str]:
        """Return the action, and why in a sentence."""
        if not candidates:
            return "create", "There is no expert yet."
        name = "p" if self.config.threshold is None else "similarity"
        fork_above = self.config.fork_above
        if fork_above is None:
            fork_above = FORK_ABOVE if self.config.threshold is None else math.inf
        scores = [_score(candidate) for candidate in candidates]
        best, score = candidates[0], scores[0]
        told = f"Expert {best.expert} is nearest by {best.task!r}, {name} {score:.2f}"
        if score >= at:
            return "reuse", f"{told}, at or above the bar of {at:.2f}."
        below = f"{told}, below the bar of {at:.2f}"
        if few:
            return "create", f"{below}; while experts are few they are made apart."
        if self.config.adapt_above is not None and score >= self.config.adapt_above:
            return "adapt", f"{below} but near enough to train it on."
        if self.config.compose and sum(one >= fork_above for one in scores) > 1:
            return "compose", f"{below}; several are near, and their sum may do."
        if score >= fork_above:
            return "fork", f"{below} but near enough to begin from."
        return "create", f"{below}, and too far to begin from."

    def _trial_chance(self, *, few: bool) -> float:
        if self.config.threshold is not None or not self.config.trial_rate:
            return 0.0
        return 1.0 if few else trial_chance(len(self.outcomes), self.config.trial_rate)

    def _draw(self) -> float:
        """Return the number in [0, 1) by which the present task becomes a trial; it doesn't depend on the task."""
        return float(torch.rand((), generator=generator_for("router trial", self.seed, self.n_decisions)))


def _score(candidate: Candidate) -> float:
    return candidate.similarity if candidate.p is None else candidate.p


def _forced(similarity: str, experts: Sequence[int], true_expert: int | None) -> Decision:
    """Return the decision of a rule that doesn't look at the task."""
    if similarity == "oracle" and true_expert is not None:
        action, expert, reason = "reuse", true_expert, f"Expert {true_expert} is told to be the right one."
    elif similarity == "always_shared" and experts:
        action, expert, reason = "adapt", min(experts), "All tasks share one expert."
    else:
        action, expert, reason = "create", None, "A new expert by rule."
    return Decision(action, expert, (), 0.0, False, 0.0, reason)


def _check_blocks(blocks: Mapping[str, int]) -> None:
    good = blocks and all(name in BLOCKS and isinstance(n, int) and n > 0 for name, n in blocks.items())
    if not good or blocks.get("context", len(CONTEXT)) != len(CONTEXT):
        way_out = f"Give Signals.blocks: of {', '.join(BLOCKS)} how many numbers each has; context has {len(CONTEXT)}"
        raise ConfigError(describe("router: blocks", "can't be those of a signal", dict(blocks), way_out))


def _told(blocks: Mapping[str, int]) -> str:
    return " + ".join(f"{name} {n}" for name, n in blocks.items()) + f" = {sum(blocks.values())} numbers"

"""The router: what to do with a task, given the library's prototypes and what came of earlier decisions."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from everlearn.errors import ConfigError, describe
from everlearn.experts.profiles import Prototypes
from everlearn.experts.router.calibration import FEATURES, Calibration, calibrated
from everlearn.experts.router.config import FORCED, LEARNED, RouterConfig
from everlearn.experts.router.decision import Candidate, Decision
from everlearn.experts.router.exploring import k_centres, posterior, trial_chance, upper_bound
from everlearn.experts.router.metric import METRICS, Embedding, Fit, Metric, fit
from everlearn.experts.router.nearest import Able, Drawn, Known, Near
from everlearn.experts.router.outcomes import Outcomes
from everlearn.experts.router.search import RECALL, Index, available, fingerprint
from everlearn.experts.router.threshold import WINDOW, cap, moved
from everlearn.experts.signals.context import FEATURES as CONTEXT
from everlearn.experts.signals.joining import BLOCKS, Space, check_dimension
from everlearn.seeds import generator_for

REFIT = 1.2  # the calibration is fitted anew when so many times as many outcomes are known
FORK_ABOVE = 0.5
EXACT = 3000  # prototypes up to which all are compared, even where usearch is installed
SAVED = 1.05  # the index is written anew when it has so many times as many rows


class Router:
    """Decides whether an expert of a library will do for a task. It holds no model.

    `decide` changes nothing; `learned` is told each decision that was carried out, with what came of it. The same
    state, seed and inputs give the same decision.

    Args:
        blocks: {text, gradient, context: how many numbers}, as `Signals.blocks`.
        seed: of which tasks become trials, of the random similarity and of `fit`.
        cache: a folder for the index by which more than 3,000 prototypes are searched, where usearch is installed; it
            may be deleted at any time. None: it is made anew in each process.

    Attributes:
        tau: the adaptive threshold, uncapped. n_decisions: that were carried out. outcomes: what came of them.

    Raises:
        ConfigError: if the blocks can't be a signal's.
    """

    def __init__(self, config: RouterConfig, blocks: Mapping[str, int], seed: int = 0, cache: Path | None = None):
        _check_blocks(blocks)
        self.config, self.blocks, self.seed, self.cache = config, dict(blocks), seed, cache
        # false are 1 - p of the reuses: with p spread evenly above the bar, half of what the bar leaves
        self.tau = 1 - 2 * config.risk
        self.n_decisions = 0
        self.outcomes = Outcomes()
        self._calibration, self._n_fitted = calibrated(self.outcomes.features, self.outcomes.right), 0
        self._recent = np.zeros((0, len(FEATURES)))
        self._cap: float | None = None  # not reckoned yet
        self._known: tuple[Prototypes, Known] | None = None
        self._index: Index | None = None
        self._n_saved = 0
        make = METRICS.get(config.similarity)
        self._metric = Metric() if make is None else make(sum(blocks.values()), generator_for("router metric", seed))

    @property
    def bar(self) -> float:
        """What p, or with a fixed threshold the similarity, is compared with now."""
        if self.config.threshold is not None:
            return self.config.threshold
        if self._cap is None:
            self._cap = cap(self._calibration.p(self._recent))
        return min(self.tau, self._cap)

    def decide(
        self, vector: torch.Tensor, prototypes: Prototypes, uses: Mapping[int, int], *,
        true_expert: int | None = None, able: Able | None = None,
    ) -> Decision:  # fmt: skip
        """Return what to do with a task.

        Args:
            vector: its signal, [dimension]. prototypes: of the experts in use; the same object as before costs less.
            uses: {expert: how often it was chosen}. true_expert: for the oracle; None: there is none.
            able: of an expert and a task that it learned, whether it can answer as it does that one (a classifier needs
                a head for the same labels); None: all can. Only those that can are candidates. Where there is none, the
                nearest can still be trained on, or a copy of it.

        Raises:
            ConfigError: if the dimension is another than the router's.
        """
        check_dimension(vector, self.blocks, "router: signal")
        if self.config.similarity in FORCED:
            return _forced(self.config.similarity, prototypes.experts, true_expert)
        at, known = self.bar, self._prepared(prototypes)
        candidates = self._candidates(vector, known, uses, at, able)
        as_it_is = bool(candidates)
        if not as_it_is and able is not None:
            candidates = self._candidates(vector, known, uses, at, None)
        few = self.config.threshold is None and len(known.experts) < self.config.bootstrap
        action, reason = self._action(candidates, at, few=few, as_it_is=as_it_is)
        chance = self._trial_chance(few=few)
        trial = action == "reuse" and self._draw() < chance
        expert = candidates[0].expert if action in ("reuse", "adapt", "fork") else None
        return Decision(action, expert, tuple(candidates), at, trial, chance, reason)

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
            self._recent, self._cap = np.vstack([self._recent, features])[-WINDOW:], None
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
        return self._prepared(prototypes).similarities(vectors)

    def first(self, vectors: torch.Tensor, prototypes: Prototypes) -> list[int]:
        """Return which of several tasks known ahead to learn first, so that the first experts lie far apart.

        Args:
            vectors: signals of the tasks, [n, dimension].

        Returns:
            Their places, by k-centre greedy: as many as experts lack to `bootstrap`.
        """
        check_dimension(vectors, self.blocks, "router: signals")
        space = Space.of(torch.cat([prototypes.vectors, vectors]), self.blocks, self._weights())
        n_lacking = max(0, self.config.bootstrap - len(set(prototypes.experts)))
        return k_centres(space.joined(vectors), n_lacking, space.joined(prototypes.vectors))

    def fit(
        self, vectors: torch.Tensor, experts: Sequence[int], prototypes: Prototypes, *, n_steps: int = 300,
        batch_size: int = 32, learning_rate: float = 1e-3, weight_decay: float = 0.01,
    ) -> Fit:  # fmt: skip
        """Learn the similarity, linear or mlp, from looks at tasks whose expert is known.

        Nothing else changes: prototypes are data, not parameters, whether in a batch or not.

        Args:
            vectors: signals of the looks, [n, dimension]. experts: to which each belongs.

        Raises:
            ConfigError: if the similarity isn't a learned one, or there are looks at fewer than five experts.
        Cost: a few seconds; each step compares a batch with its experts' prototypes and 64 others.
        """
        if self.config.similarity not in LEARNED:
            way_out = f"Choose one of {', '.join(LEARNED)}"
            raise ConfigError(
                describe("router: similarity", "there is nothing to learn", self.config.similarity, way_out)
            )
        check_dimension(vectors, self.blocks, "router: signals")
        space = Space.of(prototypes.vectors, self.blocks, self._weights())
        found = fit(
            self._metric, space.joined(prototypes.vectors), prototypes.experts, space.joined(vectors), experts,
            n_steps=n_steps, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay,
            generator=generator_for("router fit", self.seed, self.n_decisions),
        )  # fmt: skip
        self._known = self._index = None
        return found

    def state(self) -> dict[str, Any]:
        """Return all that it has learned, for `Library.keep_router`: tensors and JSON values."""
        return {
            "similarity": self.config.similarity, "blocks": dict(self.blocks), "tau": self.tau,
            "n_decisions": self.n_decisions, "n_fitted": self._n_fitted, "outcomes": self.outcomes.state(),
            "calibration": self._calibration.state(), "recent": torch.from_numpy(self._recent),
            "metric": {name: value.clone() for name, value in self._metric.state_dict().items()},
        }  # fmt: skip

    @classmethod
    def load(
        cls, config: RouterConfig, blocks: Mapping[str, int], state: Mapping[str, Any], seed: int = 0,
        cache: Path | None = None,
    ) -> "Router":  # fmt: skip
        """Return a router that goes on from a state.

        Raises:
            ConfigError: if the state is of a router with other blocks or another similarity, with what differs.
        """
        router = cls(config, blocks, seed, cache)
        if state["blocks"] != router.blocks:
            way_out = "Measure signals as the library's profiles were, or begin a new library"
            what = f"its state has {_told(state['blocks'])}"
            raise ConfigError(describe("router: blocks", what, _told(blocks), way_out))
        if state["similarity"] != config.similarity:
            what = f"what it has learned is of the similarity {state['similarity']}"
            way_out = "Keep to it, or begin with a new router"
            raise ConfigError(describe("router: similarity", what, config.similarity, way_out))
        router.tau, router.n_decisions, router._n_fitted = state["tau"], state["n_decisions"], state["n_fitted"]
        router.outcomes, router._recent = Outcomes.from_state(state["outcomes"]), state["recent"].numpy()
        router._calibration = Calibration.from_state(state["calibration"])
        router._metric.load_state_dict(state["metric"])
        return router

    def _prepared(self, prototypes: Prototypes) -> Known:
        if self._known is None or self._known[0] is not prototypes:
            embedding = Embedding(Space.of(prototypes.vectors, self.blocks, self._weights()), self._metric)
            if self.config.similarity == "random":
                self._known = prototypes, Drawn(prototypes, embedding, self.seed)
            elif len(prototypes.vectors) > EXACT and available():
                self._known = prototypes, self._searched(prototypes, embedding)
            else:
                self._known = prototypes, Known(prototypes, embedding)
        return self._known[1]

    def _searched(self, prototypes: Prototypes, embedding: Embedding) -> Known:
        settings = fingerprint(embedding)
        if self._index is None and self.cache is not None:
            self._index = Index.load(self.cache, settings, embedding)
            self._n_saved = 0 if self._index is None else len(self._index)
        if self._index is None or not self._index.follow(prototypes):
            self._index, self._n_saved = Index.make(prototypes, embedding), 0
        if self.cache is not None and len(self._index) > SAVED * self._n_saved:
            self._index.save(self.cache, settings)
            self._n_saved = len(self._index)
        if self._index.recall < RECALL:
            return Known(prototypes, embedding)
        return Known(prototypes, self._index.embedding, self._index)

    def _weights(self) -> dict[str, float]:
        if self.config.similarity == "text":
            return {name: float(name == "text") for name in self.blocks}
        return {name: self.config.weights.get(name, 1.0) for name in self.blocks}

    def _candidates(
        self, vector: torch.Tensor, known: Known, uses: Mapping[int, int], at: float, able: Able | None
    ) -> list[Candidate]:
        """Return the nearest experts; of those whose p reaches the bar, and then of the others, the highest bound
        first."""  # fmt: skip
        found = known.nearest(vector, self.config.top_k + 1, able)  # one more for the margin
        highest = [near.similarity for near in found[:2]] + [0.0, 0.0]
        n_uses = [uses.get(near.expert, 0) for near in found]
        features = np.array([
            (near.similarity, near.similarity - highest[rank == 0], math.log1p(n_uses[rank]), near.context,
             math.log(len(known.experts)))
            for rank, near in enumerate(found)
        ]).reshape(-1, len(FEATURES))  # fmt: skip
        bounds = [(None, None)] * len(found)
        if self.config.threshold is None:
            bounds = [self._bounds(near, p) for near, p in zip(found, self._calibration.p(features), strict=True)]
        candidates = [
            Candidate(near.expert, near.task, near.similarity, *bound, n, dict(zip(FEATURES, row, strict=True)))
            for near, bound, n, row in zip(found, bounds, n_uses, features.tolist(), strict=True)
        ][: self.config.top_k]
        if self.config.threshold is None:
            candidates.sort(key=lambda one: (one.p >= at, one.ucb), reverse=True)
        return candidates

    def _bounds(self, near: Near, p: float) -> tuple[float, float]:
        """Return p of an expert and its upper bound, given the calibration's p."""
        n, n_right = self.outcomes.like(near.expert, near.similarity)
        p = posterior(float(p), n_right, n)
        return p, upper_bound(p, n, len(self.outcomes), self.config.explore)

    def _action(self, candidates: Sequence[Candidate], at: float, *, few: bool, as_it_is: bool) -> tuple[str, str]:
        """Return the action, and why in a sentence.

        Args:
            as_it_is: whether the candidates can answer without training.
        """
        if not candidates:
            return "create", "There is no expert yet."
        name = "p" if self.config.threshold is None else "similarity"
        fork_above = self.config.fork_above
        if fork_above is None:
            fork_above = FORK_ABOVE if self.config.threshold is None else math.inf
        scores = [candidate.score for candidate in candidates]
        best, score = candidates[0], scores[0]
        told = f"Expert {best.expert} is nearest by {best.task!r}, {name} {score:.2f}"
        if score >= at and as_it_is:
            return "reuse", f"{told}, at or above the bar of {at:.2f}."
        if score >= at:
            return "fork", f"{told}, at or above the bar of {at:.2f}, but no expert has a head for its labels."
        below = f"{told}, below the bar of {at:.2f}"
        if few:
            return "create", f"{below}; while experts are few they are made apart."
        if self.config.adapt_above is not None and score >= self.config.adapt_above:
            return "adapt", f"{below} but near enough to train it on."
        if self.config.compose and as_it_is and sum(one >= fork_above for one in scores) > 1:
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

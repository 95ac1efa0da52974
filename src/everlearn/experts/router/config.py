"""Settings of a router."""

from dataclasses import dataclass, field

from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.experts.signals.joining import BLOCKS

LEARNED = ("linear", "mlp")
FORCED = ("oracle", "always_new", "always_shared")
SIMILARITIES = ("cosine", *LEARNED, "text", "random", *FORCED)
RATES = ("reuses", "tasks")


@dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """How a router decides.

    Args:
        similarity: of a task to a prototype. cosine, in the space of all signals; linear or mlp, learned by
            `Router.fit`. To compare with: text (of that signal alone), random, oracle (is told the right expert),
            always_new, always_shared (all tasks in the first expert).
        threshold: reuse from this similarity on; 1.1 forces new experts. null: the chance that reuse is as good as a
            new expert is estimated from outcomes, p(reuse), and compared with an adaptive threshold, tau.
        top_k: candidates, nearest first, among which the one with the highest upper bound is chosen.
        explore: c of the upper bound p + c √(ln t / (n + 10)), n outcomes of the expert at this similarity, t of all.
        risk: rate of false reuse that tau holds. risk_of: the rate's denominator, reuses or tasks.
        step: by how much tau moves for a false reuse.
        trial_rate: share of the tasks on which reuse is tried beside a new expert; more while few outcomes are known.
        bootstrap: until so many experts exist nothing is reused untried, and what is far from all of them is learned
            from nothing.
        adapt_above, fork_above: of what reuse was not decided for, go on training the expert from this p (or, with a
            fixed threshold, similarity) on, or a copy of it. null: never, but for fork_above from p = 0.5 on.
        compose: where several candidates could be forked, take their weighted sum instead.
        weights: of the signals, {text, gradient, context: number}; 1 each by default, 0 leaves one out.
    """

    similarity: str = "cosine"
    threshold: float | None = None
    top_k: int = 4
    explore: float = 0.1
    risk: float = 0.1
    risk_of: str = "reuses"
    step: float = 0.1
    trial_rate: float = 0.1
    bootstrap: int = 4
    adapt_above: float | None = None
    fork_above: float | None = None
    compose: bool = False
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("router: similarity", self.similarity, SIMILARITIES)
        check_choice("router: risk_of", self.risk_of, RATES)
        for name in ("threshold", "adapt_above", "fork_above"):
            if vars(self)[name] is not None:
                check_number(f"router: {name}", vars(self)[name], low=-1)
        for name in ("top_k", "bootstrap"):
            if not isinstance(vars(self)[name], int):
                way_out = "Give a whole number"
                raise ConfigError(describe(f"router: {name}", "is no whole number", vars(self)[name], way_out))
        check_number("router: top_k", self.top_k, low=1)
        check_number("router: bootstrap", self.bootstrap, low=0)
        check_number("router: explore", self.explore, low=0)
        check_number("router: risk", self.risk, above=0, high=0.5)
        check_number("router: step", self.step, above=0, high=1)
        check_number("router: trial_rate", self.trial_rate, low=0, high=1)
        for name, weight in self.weights.items():
            check_choice("router: weights", name, BLOCKS)
            check_number(f"router: weight of {name}", weight, low=0)

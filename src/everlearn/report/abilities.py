"""What is left of a base model's abilities after each learning step, as results and reports show it."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everlearn.evaluation.stats import Interval, range_of, seeds_interval
from everlearn.report.records import Run
from everlearn.types import Score

BEFORE = -1  # the step before any learning
SHOWN = {  # metric -> (what is shown in its place, from its value)
    "negative_kl": ("KL(base ‖ model), nats a token", lambda value: -value),
    "token_log_likelihood": ("perplexity", lambda value: math.exp(min(-value, 700.0))),
}


@dataclass(frozen=True)
class Ability:
    """One of the base model's abilities in a run. `steps[k + 1]` is after step k, `steps[0]` before any; None where it
    wasn't measured in all the seeds."""  # fmt: skip

    name: str
    metric: str
    n: int
    steps: tuple[Interval | None, ...]

    @property
    def title(self) -> str:
        """What is shown: a divergence or a perplexity, better where lower; or a share, better where higher."""
        return SHOWN[self.metric][0] if self.metric in SHOWN else self.metric.replace("_", " ")

    @property
    def short_title(self) -> str:
        """What is shown, in few letters."""
        return "KL" if self.metric == "negative_kl" else self.title

    @property
    def shown(self) -> tuple[Interval | None, ...]:
        """The steps in the terms of `title`."""
        if self.metric not in SHOWN:
            return self.steps
        change = SHOWN[self.metric][1]
        return tuple(one and Interval(change(one.value), change(one.high), change(one.low)) for one in self.steps)

    @property
    def last(self) -> Interval | None:
        """What is shown after the last step that was measured."""
        return next((one for one in reversed(self.shown[1:]) if one is not None), None)


def abilities_of(run: Run, seeds: Collection[int]) -> list[Ability]:
    """Return the abilities that were measured in a run, in their order; several seeds' are averaged.

    Intervals are over items, and over seeds where there are several (`seeds_interval`).
    """
    chosen = [result for result in run.abilities if result.seed in seeds]
    n_steps = max((len(run.schedule[seed]) for seed in seeds), default=0)
    found = []
    for name in dict.fromkeys(result.score.task for result in chosen):
        own = {(result.seed, result.after): result.score for result in chosen if result.score.task == name}
        first = next(iter(own.values()))
        steps = [
            _mean([own[seed, after] for seed in seeds if (seed, after) in own], len(seeds))
            for after in range(BEFORE, n_steps)
        ]
        found.append(Ability(name, first.metric, first.n, tuple(steps)))
    return found


def seed_entry(run: Run, seed: int) -> dict[str, Any]:
    """Return one seed's abilities for results.json, `{"abilities": ...}`; empty where none was measured."""
    entries = {
        one.name: {
            "metric": one.metric,
            "n": one.n,
            "before": _value(one.steps[0]),
            "values": [None if step is None else step.value for step in one.steps[1:]],
            "low": [None if step is None else step.low for step in one.steps[1:]],
            "high": [None if step is None else step.high for step in one.steps[1:]],
        }
        for one in abilities_of(run, [seed])
    }
    return {"abilities": entries} if entries else {}


def summary_entry(run: Run, seeds: Sequence[int]) -> dict[str, Any]:
    """Return each ability before the first step and after the last one, over seeds; empty where none was measured."""
    entries = {
        one.name: {
            "metric": one.metric,
            "n": one.n,
            "n_seeds": len(seeds),
            "before": _entry(one.steps[0]),
            "after": _entry(next((step for step in reversed(one.steps[1:]) if step is not None), None)),
        }
        for one in abilities_of(run, seeds)
    }
    return {"abilities": entries} if entries else {}


def _mean(scores: Sequence[Score], n_seeds: int) -> Interval | None:
    if not scores or len(scores) < n_seeds:
        return None
    ends = [[math.nan if end is None else end for end in (score.low, score.high)] for score in scores]
    parts = [Interval(score.value, *own) for score, own in zip(scores, ends, strict=True)]
    return seeds_interval(parts, range_of(scores[0].metric))


def _value(interval: Interval | None) -> float | None:
    return None if interval is None else interval.value


def _entry(interval: Interval | None) -> Mapping[str, float] | None:
    return None if interval is None else {"mean": interval.value, "low": interval.low, "high": interval.high}

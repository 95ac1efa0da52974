"""Choosing among methods by four numbers at once: which stand on the Pareto front, and which of them to recommend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from everlearn.errors import ConfigError, describe
from everlearn.evaluation.stats import Interval


@dataclass(frozen=True)
class Option:
    """One method as measured. Of `score`, `retention` and `plasticity` more is better; of the other two, less.

    score: average over all tasks at the end. time: of training, as a multiple of plain training's.
    """

    name: str
    score: float
    retention: float
    plasticity: float
    memory_bytes: float
    time: float


@dataclass(frozen=True)
class Choice:
    """`chosen` of those on the front; `best` there by score; `tied` with the best, it among them. All are names."""

    chosen: str
    best: str
    tied: tuple[str, ...]
    front: tuple[str, ...]


def dominates(one: Option, other: Option) -> bool:
    """Tell whether `one` is at least as good in retention, plasticity, memory and time, and better in one of them."""
    gains = (
        one.retention - other.retention,
        one.plasticity - other.plasticity,
        other.memory_bytes - one.memory_bytes,
        other.time - one.time,
    )
    return min(gains) >= 0 and max(gains) > 0


def pareto_front(options: Sequence[Option]) -> list[Option]:
    """Return the options that no other dominates, in their order."""
    return [option for option in options if not any(dominates(other, option) for other in options)]


def choose(options: Sequence[Option], difference: Callable[[str, str], Interval]) -> Choice:
    """Return what to recommend.

    Of the options on the front the one with the highest score is best. Those whose distance to it is within chance (the
    paired interval of best − option does not lie above 0) are tied with it; the one that keeps least memory is chosen,
    then the fastest, then the higher score.

    Args:
        difference: (name, name) -> how the second's score differs from the first's, second − first, with its interval.
    Raises:
        ConfigError: if there is no option.
    """
    if not options:
        raise ConfigError(describe("choose", "there is nothing to choose from", list(options), "Pass an option"))
    front = pareto_front(options)
    best = max(front, key=lambda option: option.score)
    tied = [option for option in front if option is best or not difference(option.name, best.name).low > 0]
    chosen = min(tied, key=lambda option: (option.memory_bytes, option.time, -option.score))
    return Choice(chosen.name, best.name, tuple(o.name for o in tied), tuple(o.name for o in front))

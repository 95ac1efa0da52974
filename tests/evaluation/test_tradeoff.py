"""The Pareto front and the choice on it, against what can be told by hand."""

import itertools
import math

import pytest

from everlearn.errors import ConfigError
from everlearn.evaluation.stats import Interval
from everlearn.evaluation.tradeoff import Option, choose, dominates, pareto_front

PLAIN = Option("none", 0.30, 0.40, 1.00, 0, 1.0)
REPLAY = Option("replay", 0.80, 0.95, 0.98, 1000, 2.0)
BOTH = Option("both", 0.82, 0.97, 0.97, 5000, 2.5)
WORSE = Option("worse", 0.60, 0.90, 0.90, 1000, 2.0)  # behind replay in all four


def sure(options):
    """Differences without any doubt."""
    scores = {option.name: option.score for option in options}
    return lambda first, second: Interval(*[scores[second] - scores[first]] * 3)


def unsure(half):
    scores = {option.name: option.score for option in (PLAIN, REPLAY, BOTH, WORSE)}

    def difference(first, second):
        value = scores[second] - scores[first]
        return Interval(value, value - half, value + half)

    return difference


def test_the_front_is_what_no_other_dominates():
    assert pareto_front([PLAIN, REPLAY, BOTH, WORSE]) == [PLAIN, REPLAY, BOTH]
    assert dominates(REPLAY, WORSE)
    assert not dominates(REPLAY, REPLAY)  # equals both stay


def test_the_front_agrees_with_a_slow_reference():
    grid = [Option(str(i), 0.5, *four) for i, four in enumerate(itertools.product((0, 1), repeat=4))]
    best = max(grid, key=lambda o: o.retention + o.plasticity - o.memory_bytes - o.time)
    assert pareto_front(grid) == [best]
    pair = [o for o in grid if o.retention + o.plasticity - o.memory_bytes - o.time == 1]
    assert pareto_front(pair) == pair


def test_the_best_score_on_the_front_is_chosen():
    choice = choose([PLAIN, REPLAY, BOTH, WORSE], sure([PLAIN, REPLAY, BOTH, WORSE]))
    assert (choice.chosen, choice.best, choice.tied) == ("both", "both", ("both",))
    assert choice.front == ("none", "replay", "both")


def test_a_tie_goes_to_less_memory_then_less_time():
    choice = choose([PLAIN, REPLAY, BOTH, WORSE], unsure(0.1))
    assert (choice.chosen, choice.best, choice.tied) == ("replay", "both", ("replay", "both"))
    assert choose([PLAIN, REPLAY, BOTH], unsure(0.6)).chosen == "none"
    quick = Option("quick", 0.79, 0.94, 0.98, 1000, 1.5)
    assert choose([REPLAY, quick], lambda first, second: Interval(0.01, -0.1, 0.1)).chosen == "quick"


def test_an_interval_that_is_not_known_is_a_tie():
    choice = choose([PLAIN, REPLAY], lambda first, second: Interval(0.5, math.nan, math.nan))
    assert choice.chosen == "none"


def test_nothing_to_choose_from():
    with pytest.raises(ConfigError, match="nothing to choose"):
        choose([], sure([]))

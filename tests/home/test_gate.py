"""The gate's rules on outcomes made by hand."""

import json

import pytest

from everlearn.errors import ConfigError
from everlearn.evaluation.stats import items_needed, paired_difference
from everlearn.home.gate import Gate, compare_scores, judge, report_from, report_values
from everlearn.types import Score


def score(outcomes: list[float], task: str = "a", metric: str = "accuracy", value: float | None = None) -> Score:
    mean = sum(outcomes) / len(outcomes)
    return Score(task, metric, mean if value is None else value, None, None, len(outcomes), tuple(outcomes))


def verdict_of(rule: str, n_lost: int, n_gained: int, n: int, tolerance: float = 0.02):
    before = [1.0] * n_lost + [0.0] * n_gained + [1.0] * (n - n_lost - n_gained)
    after = [0.0] * n_lost + [1.0] * n_gained + [1.0] * (n - n_lost - n_gained)
    return judge(Gate(tolerance, rule), {"a": score(before)}, {"a": score(after)}).verdicts[0]


@pytest.mark.parametrize(
    ("n_lost", "n_gained", "n", "point", "confident", "safe"),
    [
        (0, 0, 50, False, False, True),  # nothing lost, but 50 items can't promise that
        (0, 0, 5000, False, False, False),
        (1, 0, 50, False, False, True),  # exactly the tolerance is not above it
        (2, 0, 50, True, False, True),
        (30, 0, 50, True, True, True),
        (0, 30, 50, False, False, False),  # a sure gain
        (300, 300, 5000, False, False, False),
        (500, 300, 5000, True, True, True),
    ],
)
def test_rules(n_lost: int, n_gained: int, n: int, point: bool, confident: bool, safe: bool) -> None:
    refused = {rule: verdict_of(rule, n_lost, n_gained, n).refused for rule in ("point", "confident", "safe")}
    assert refused == {"point": point, "confident": confident, "safe": safe}


def test_rules_follow_the_interval_of_the_loss() -> None:
    found = verdict_of("point", 10, 4, 100)
    paired = paired_difference([1.0] * 10 + [0.0] * 4 + [1.0] * 86, [0.0] * 10 + [1.0] * 4 + [1.0] * 86)
    assert (found.change.difference, found.change.low, found.change.high) == (-0.06, paired.low, paired.high)
    assert (found.change.n_lost, found.change.n_gained, found.change.n) == (10, 4, 100)
    just_below, just_above = -paired.high - 1e-6, -paired.high + 1e-6
    if just_below >= 0:
        assert verdict_of("confident", 10, 4, 100, just_below).refused
    assert not verdict_of("confident", 10, 4, 100, max(0.0, just_above)).refused
    assert verdict_of("safe", 10, 4, 100, -paired.low - 1e-6).refused
    assert not verdict_of("safe", 10, 4, 100, -paired.low + 1e-6).refused


def test_says_when_items_are_too_few_and_how_many_would_do() -> None:
    few = verdict_of("point", 1, 1, 20)
    assert few.undecided
    assert few.n_needed == items_needed(0.02, 0.1, 0.0) > 20
    assert not verdict_of("point", 30, 0, 50).undecided
    assert verdict_of("point", 30, 0, 50).n_needed is None
    assert verdict_of("point", 0, 0, 10, tolerance=0.0).n_needed is None  # nothing tells no loss from a loss of 0


def test_one_item_without_an_interval() -> None:
    before, after = {"a": score([-1.5], metric="token_log_likelihood")}, {"a": score([-1.6])}
    refused = {
        rule: judge(Gate(0.02, rule), before, after).verdicts[0].refused for rule in ("point", "confident", "safe")
    }
    assert refused == {"point": True, "confident": False, "safe": True}


def test_any_task_refuses_and_metrics_that_are_no_means_say_what_is_compared() -> None:
    before = {"a": score([1.0, 1.0]), "b": score([1.0, 0.5], "b", "entity_f1", 0.9)}
    after = {"a": score([1.0, 1.0]), "b": score([0.5, 0.5], "b", "entity_f1", 0.7), "new": score([1.0, 1.0], "new")}
    report = judge(Gate(), before, after)
    assert [verdict.refused for verdict in report.verdicts] == [False, True]
    assert report.refused
    change = report.verdicts[1].change
    assert (change.before, change.after, change.difference) == (0.9, 0.7, -0.25)
    assert "sentence" in change.compared
    assert not judge(Gate(), {}, after).refused


def test_report_survives_json() -> None:
    report = judge(Gate(0.1, "safe"), {"a": score([1.0, 0.0])}, {"a": score([0.0, 0.0])})
    assert report_from(json.loads(json.dumps(report_values(report), allow_nan=False))) == report


def test_bad_gates_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"gate: is out of range\. Got -0\.1"):
        Gate(-0.1)
    with pytest.raises(ConfigError, match="Did you mean 'confident'"):
        Gate(0.1, "confidant")
    with pytest.raises(ConfigError, match="lengths differ"):
        compare_scores(score([1.0]), score([1.0, 0.0]))

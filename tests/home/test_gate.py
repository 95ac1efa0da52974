"""The gate's rules on outcomes made by hand."""

import json

import pytest

from everlearn.errors import ConfigError
from everlearn.evaluation.losses import loss_p_value
from everlearn.evaluation.stats import items_needed, paired_difference
from everlearn.home.gate import (
    Comparison,
    Gate,
    GateReport,
    can_guard,
    compare_scores,
    judge,
    judge_abilities,
    judge_all,
    report_from,
    report_values,
)
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
        (2, 0, 50, False, False, True),  # above it, and well by chance
        (5, 1, 50, False, False, True),
        (5, 0, 50, True, False, True),
        (4, 0, 4, True, True, True),  # all of four
        (30, 0, 50, True, True, True),
        (0, 30, 50, False, False, False),  # a sure gain
        (300, 300, 5000, False, False, False),
        (380, 300, 5000, False, False, True),  # sure to be a loss, and within the tolerance
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
    before = {"a": score([1.0, 1.0]), "b": score([1.0, 0.9, 0.5] * 2, "b", "entity_f1", 0.9)}
    after = {"a": score([1.0, 1.0]), "b": score([0.5, 0.3, 0.2] * 2, "b", "entity_f1", 0.7), "new": score([1.0], "new")}
    report = judge(Gate(), before, after)
    assert [verdict.refused for verdict in report.verdicts] == [False, True]
    assert report.refused
    change = report.verdicts[1].change
    assert (change.before, change.after, change.difference) == (0.9, 0.7, pytest.approx(-7 / 15))
    assert "sentence" in change.compared
    assert not judge(Gate(), {}, after).refused


def lost(n_lost: int, n: int = 100, task: str = "a") -> Score:
    """A score of n items of which the first ones went wrong."""
    return score([0.0] * n_lost + [1.0] * (n - n_lost), task)


def test_many_comparisons_together_keep_the_chance_of_a_false_refusal() -> None:
    names = [f"t{i}" for i in range(20)]
    before = {name: lost(0, task=name) for name in names}
    after = {name: lost(5 if name == "t3" else 0, task=name) for name in names}
    alone = judge(Gate(), {"t3": before["t3"]}, after)
    together = judge(Gate(), before, after)
    assert (alone.refused, together.refused) == (True, False)
    assert alone.verdicts[0].p_value == loss_p_value(before["t3"].outcomes, after["t3"].outcomes)
    assert together.verdicts[3].p_value == pytest.approx(20 * alone.verdicts[0].p_value)
    assert judge(Gate(), before, {**after, "t3": lost(12, task="t3")}).lost.keys() == {"t3"}


@pytest.mark.parametrize("rule", ["point", "confident"])
def test_small_losses_in_a_row_end_at_the_best_version_before(rule: str) -> None:
    history = [lost(0)]
    while True:
        current, new = history[-1], lost(2 * len(history))
        best = Comparison(history[0], new, 1, len(history) - 1)
        report = judge_all(Gate(rule=rule), [Comparison(current, new, len(history)), best], 2)
        if report.refused:
            break
        history.append(new)
    assert history[-1].value >= 0.88
    assert [(verdict.refused, verdict.version) for verdict in report.verdicts] == [(False, len(history)), (True, 1)]


def test_the_best_of_many_scores_counts_as_one_of_many_tests() -> None:
    few = judge_all(Gate(), [Comparison(lost(0), lost(6), 1, 1)], 1).verdicts[0]
    many = judge_all(Gate(), [Comparison(lost(0), lost(6), 1, 20)], 1).verdicts[0]
    assert many.p_value == pytest.approx(20 * few.p_value)
    assert (few.refused, many.refused) == (True, False)


def test_a_score_that_can_not_fall_by_the_tolerance_guards_nothing() -> None:
    assert not can_guard(lost(100), 0.02)
    assert not can_guard(lost(98), 0.02)
    assert can_guard(lost(97), 0.02)
    assert can_guard(lost(100), 1.0)  # any loss is accepted
    assert can_guard(score([-9.0, -3.0], metric="token_log_likelihood"), 0.02)


def test_report_survives_json() -> None:
    comparison = Comparison(score([1.0, 0.0]), score([0.0, 0.0]), 3, 2, stands_in=True)
    report = judge_all(Gate(0.1, "safe"), [comparison, Comparison(score([-1.5]), score([-1.6]), unguarded=True)], 2)
    assert report_from(json.loads(json.dumps(report_values(report), allow_nan=False))) == report


@pytest.mark.parametrize(
    ("loss", "gate", "lost_too_much"),
    [
        (0.30, Gate(), True),
        (0.04, Gate(), False),
        (0.04, Gate(abilities=0.01), True),
        (0.06, Gate(rule="confident"), False),  # the interval holds the tolerance
        (0.30, Gate(rule="confident"), True),
        (0.04, Gate(rule="safe"), True),  # as it does here
        (0.04, Gate(rule="safe", abilities=0.2), False),
    ],
)
def test_a_lost_ability_is_a_warning_but_where_the_gate_is_safe(loss: float, gate: Gate, lost_too_much: bool) -> None:
    base, left = [0.0] * 32, [-loss + 0.05 * (-1) ** i for i in range(32)]
    pair = (score(one, "abilities/self", "negative_kl") for one in (base, left))
    verdicts = judge_abilities(gate, [Comparison(*pair, version=0)])
    assert verdicts[0].refused is lost_too_much
    report = GateReport(gate.tolerance, gate.rule, (), verdicts, gate.abilities)
    refuses = lost_too_much and gate.rule == "safe"
    assert (report.refused, list(report.lost)) == (refuses, ["abilities/self"] if refuses else [])
    assert report.warned == (["abilities/self"] if lost_too_much and not refuses else [])
    assert report_from(json.loads(json.dumps(report_values(report), allow_nan=False))) == report


def test_abilities_change_no_verdict_on_tasks() -> None:
    before, after = {"a": score([1.0] * 20)}, {"a": score([1.0] * 16 + [0.0] * 4)}
    alone = judge(Gate(), before, after)
    assert judge(Gate(abilities=3.0), before, after).verdicts == alone.verdicts
    values = {key: value for key, value in report_values(alone).items() if not key.startswith("abilities")}
    assert report_from(values) == alone  # as it was kept before abilities were watched


def test_report_from_before_there_were_several_comparisons_is_read() -> None:
    values = report_values(judge(Gate(), {"a": score([1.0, 0.0])}, {"a": score([0.0, 0.0])}))
    older = ("change", "refused", "undecided", "n_needed")
    values["verdicts"] = [{key: verdict[key] for key in older} for verdict in values["verdicts"]]
    verdict = report_from(values).verdicts[0]
    assert (verdict.version, verdict.p_value, verdict.unguarded) == (None, None, False)


def test_bad_gates_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"gate: is out of range\. Got -0\.1"):
        Gate(-0.1)
    with pytest.raises(ConfigError, match="Did you mean 'confident'"):
        Gate(0.1, "confidant")
    with pytest.raises(ConfigError, match="lengths differ"):
        compare_scores(score([1.0]), score([1.0, 0.0]))

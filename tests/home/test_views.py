"""Tables and sentences say what happened."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from everlearn.evaluation.answers import Flip
from everlearn.home.comparing import CheckReport, Diff, Drift
from everlearn.home.gate import Comparison, Gate, compare_scores, judge, judge_all
from everlearn.home.learning import LearnReport
from everlearn.home.views import (
    change_notes,
    diff_table,
    drift_table,
    flips_table,
    gate_sentences,
    gate_table,
    log_table,
    outcome_sentence,
)
from everlearn.types import Score


def score(outcomes: tuple[float, ...], task: str = "old", metric: str = "accuracy") -> Score:
    return Score(task, metric, sum(outcomes) / len(outcomes), None, None, len(outcomes), outcomes)


def shown(table: Table) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


BEFORE, AFTER = score((1.0, 1.0, 1.0, 0.0)), score((1.0, 0.0, 0.0, 1.0))
CHANGE = compare_scores(BEFORE, AFTER)


def report(gate: Gate, status: str) -> LearnReport:
    judged = judge(gate, {"old": score((1.0,) * 9)}, {"old": score((0.0,) * 9)})
    return LearnReport(4, "new", status, score((1.0,), "new"), CHANGE, judged, {})


def test_gate_tells_verdict_and_how_many_items_would_do() -> None:
    judged = judge(Gate(), {"old": BEFORE}, {"old": AFTER})
    row = "".join(shown(gate_table(judged)).splitlines()[-3:-1])
    for cell in ("old", "0.750", "0.500", "-0.250", "2", "1", "4", "current version", "passed, too few items"):
        assert cell in row
    needed = judged.verdicts[0].n_needed
    assert gate_sentences(judged) == [
        "old: 4 items are too few to tell whether the loss is above 0.02 "
        f"(about {needed} would do, if nothing is lost in truth)."
    ]
    sure = judge(Gate(0.02), {"old": score((1.0,) * 40)}, {"old": score((0.0,) * 40)})
    assert "refused: lost too much" in shown(gate_table(sure))
    chance = "if nothing were lost in truth, the chance of this in any of the comparisons would be below 0.001"
    assert gate_sentences(sure) == [f"old: 1.000 lost against current version, more than the 0.02 accepted; {chance}."]


def test_gate_says_against_which_version_and_by_which_metric() -> None:
    high, low = score((1.0,) * 40), score((0.0,) * 40)
    nats = score((-0.1, -0.2), metric="token_log_likelihood"), score((-4.1, -4.0), metric="token_log_likelihood")
    comparisons = [
        Comparison(high, low, 3),
        Comparison(high, low, 1, 2),
        Comparison(*nats, 3, stands_in=True),
        Comparison(low, low, 3, unguarded=True),
    ]
    judged = judge_all(Gate(), comparisons, 4)
    table = shown(gate_table(judged))
    for cell in ("version 3 (current)", "version 1 (the best before)", "(nats/token)", "UNGUARDED"):
        assert cell in table
    sentences = " ".join(gate_sentences(judged))
    assert "log-likelihoods are compared (the gate is 0.02 nats per token)" in sentences
    assert "old is UNGUARDED: accuracy was 0.000 and is 0.000, so no loss above 0.02 can show." in sentences
    assert "1.000 lost against version 1 (the best before)" in sentences
    learned = LearnReport(4, "new", "refused", score((1.0,), "new"), CHANGE, judged, {})
    wanted = "did not pass the gate on old against version 3 (current) and version 1 (the best before); the current"
    assert wanted in outcome_sentence(learned, "h")
    assert "See it: everlearn diff h 3 4;" in outcome_sentence(learned, "h")
    safe = judge_all(Gate(rule="safe"), [Comparison(high, high, 3)], 1)
    assert gate_sentences(safe)[0].endswith("that no more than 0.02 is lost in truth isn't sure.")


def test_outcome_names_the_tasks() -> None:
    assert "did not pass the gate on old against current version; the current version stays" in outcome_sentence(
        report(Gate(), "refused"), "h"
    )
    assert "current by force" in outcome_sentence(report(Gate(), "forced"), "h")
    assert outcome_sentence(report(Gate(1.0), "promoted"), "h") == "Version 4 is current."


def test_metric_that_is_no_mean_over_items_is_explained() -> None:
    change = compare_scores(score((0.5, 1.0), metric="entity_f1"), score((1.0, 1.0), metric="entity_f1"))
    assert change_notes([change, change]) == [
        "The difference of entity_f1 is taken over items: each sentence's own entity F1."
    ]
    assert change_notes([CHANGE]) == []


def test_hostile_answers_are_text_in_the_terminal() -> None:
    hostile = "[red]red[/red] [/oops] \x1b[2J\x07 \u202egnp.exe \u2066 <script>\nnext" + "y" * 3_000_000
    text = shown(flips_table([Flip("old", hostile, "[link=x]", None, 0.0, 1.0, hostile, "[/]")]))
    assert all(mark in text for mark in ("[red]red[/red] [/oops] \\x1b[2J\\x07 \\u202egnp.exe", "[link=x]", "[/]"))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert len(text) < 5000


def test_diff_drift_flips_and_log() -> None:
    diff = Diff(1, 2, (CHANGE,), (Flip("old", "x" * 300, "cat", None, 1.0, 0.25, "cat"),), {"old": [1]})
    assert "version 1 has not learned it" in shown(diff_table(diff))
    table = flips_table(diff.flips)
    assert [list(column.cells) for column in table.columns][1:] == [
        [Text("x" * 66 + "…" + "x" * 33)], [Text("cat")], [Text("cat\nright")], [Text("–\n0.25")],
    ]  # fmt: skip
    drift = shown(drift_table(CheckReport(2, (), (Drift(1, CHANGE),))))
    assert "learned in version" in drift
    events = [
        {"time": "2026-01-02T03:04:05.678Z", "event": "init", "version": 0},
        {"time": "2026-01-02T03:04:06.678Z", "event": "learn", "version": 1, "task": "old", "status": "promoted"},
        {
            "time": "2026-01-02T03:04:07.678Z", "event": "learn", "version": 4, "task": "new", "status": "refused",
            "parent": 3, "lost": ["old", "older"], "against": {"old": [3, 1]},
        },
        {"time": "2026-01-02T03:04:08.678Z", "event": "retire", "version": 1, "task": "old", "retired": 2, "items": 6},
    ]  # fmt: skip
    lines = shown(log_table(events, 1))
    assert "2026-01-02 03:04:05" in lines
    assert "1 (current)" in lines
    assert "0 (current)" not in lines
    assert "not passed on old against version 3 (current then) and version 1 (the best before), older" in lines
    assert "2 retired; 6 items left" in lines

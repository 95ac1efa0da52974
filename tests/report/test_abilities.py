import math

import pytest
from tests.report.conftest import header_line, stream_lines, write_log

from everlearn.report.abilities import abilities_of
from everlearn.report.html import write_report
from everlearn.report.plot_abilities import draw_abilities
from everlearn.report.records import read_run
from everlearn.report.results import write_results
from everlearn.report.table import abilities_grid
from everlearn.report.views import load_views

TASKS = ["a", "b"]


def ability_line(seed, after, name, metric, value, half=0.1):
    low, high = value - half, min(value + half, 0.0 if value <= 0 else 1.0)
    return {
        "type": "ability", "seed": seed, "after": after, "trained": TASKS[after] if after >= 0 else None, "task": name,
        "metric": metric, "value": value, "low": low, "high": high, "n": 20, "metrics": {metric: value}, "outcomes": [],
    }  # fmt: skip


def watched(folder, seeds=(0,), kl=(0.0, -0.2, -0.5), until=None):
    """Write a run whose abilities were watched: its own texts, and a text of the user's."""
    lines = stream_lines(dict.fromkeys(seeds, TASKS), 0.1, 0.9, 20, {})
    for seed in seeds:
        for after, value in zip((-1, 0, 1), kl, strict=True):
            lines.append(ability_line(seed, after, "self", "negative_kl", value - 0.1 * seed * (after >= 0)))
            lines.append(ability_line(seed, after, "prose.txt", "token_log_likelihood", -2.0 + value))
    return write_log(folder, lines[:until])


def test_abilities_are_read_in_their_order_and_averaged_over_seeds(tmp_path):
    run = read_run(watched(tmp_path / "run", seeds=(0, 1)))
    own, prose = abilities_of(run, [0, 1])
    assert (own.name, own.metric, own.n, prose.name) == ("self", "negative_kl", 20, "prose.txt")
    assert [step.value for step in own.steps] == pytest.approx([0.0, -0.25, -0.55])
    assert own.steps[1].low < -0.35  # wider than one seed's
    assert [step.value for step in abilities_of(run, [1])[0].steps] == pytest.approx([0.0, -0.3, -0.6])
    assert abilities_of(run, []) == []


def test_a_divergence_and_a_perplexity_are_shown_with_their_ends_turned(tmp_path):
    own, prose = abilities_of(read_run(watched(tmp_path / "run")), [0])
    assert (own.shown[2].value, own.shown[2].low, own.shown[2].high) == pytest.approx((0.5, 0.4, 0.6))
    assert prose.last.value == pytest.approx(math.exp(2.5))
    assert prose.last.low == pytest.approx(math.exp(2.4))
    assert "KL" in own.title
    assert prose.title == "perplexity"


def test_results_hold_them_only_where_they_were_measured(tmp_path, make_run):
    results = write_results(watched(tmp_path / "run", seeds=(0, 1)))
    assert results["seeds"][0]["abilities"]["self"] == {
        "metric": "negative_kl", "n": 20, "before": 0.0, "values": [-0.2, -0.5], "low": [-0.30000000000000004, -0.6],
        "high": [-0.1, -0.4],
    }  # fmt: skip
    summary = results["abilities"]["self"]
    assert (summary["n_seeds"], summary["before"]["mean"], summary["after"]["mean"]) == (2, 0.0, pytest.approx(-0.55))
    plain = write_results(make_run("plain", TASKS))
    assert "abilities" not in plain
    assert "abilities" not in plain["seeds"][0]


def test_a_run_that_was_stopped_shows_what_there_is(tmp_path):
    lines = [header_line({0: TASKS}), ability_line(0, -1, "self", "negative_kl", 0.0)]
    results = write_results(write_log(tmp_path / "run", lines))
    assert results["abilities"]["self"]["after"] is None
    assert results["seeds"][0]["abilities"]["self"]["values"] == [None, None]


def test_the_table_and_the_picture_are_of_all_runs_that_watched(tmp_path, make_run):
    runs = {"one": watched(tmp_path / "one"), "other": watched(tmp_path / "other", kl=(0.0, -0.1, -0.1))}
    views = load_views({**runs, "blind": make_run("blind", TASKS)})
    grid = abilities_grid(views)
    assert grid.columns[1].startswith("self: KL")
    assert grid.rows[0][1] == "0.000 → 0.500\n[0.400, 0.600]"
    assert grid.rows[2][1:] == ("–", "–")
    own, prose = draw_abilities(views).axes
    assert [line.get_ydata().tolist() for line in own.lines[:2]] == [[0.0, 0.2, 0.5], [0.0, 0.1, 0.1]]
    assert own.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert len(own.collections) == 2
    assert prose.get_yscale() == "log"
    assert draw_abilities(views[2:]) is None
    assert abilities_grid(views[2:]) is None


def test_the_report_shows_them_beside_the_tasks(tmp_path, make_run):
    write_report({"one": watched(tmp_path / "one")}, tmp_path / "report")
    assert (tmp_path / "report" / "abilities.png").exists()
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.index("The run in numbers") < page.index("Kept of before") < page.index("Scores after each step")
    assert "## Kept of before" in (tmp_path / "report" / "report.md").read_text()
    write_report({"blind": make_run("blind", TASKS)}, tmp_path / "blind_report")
    assert not (tmp_path / "blind_report" / "abilities.png").exists()
    assert "Kept of before" not in (tmp_path / "blind_report" / "report.html").read_text()

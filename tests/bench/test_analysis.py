"""The analysis of an experiment: what stands in its tables, and that all of its files are there."""

import csv
from pathlib import Path

import numpy as np
import pytest

from everlearn.bench.analysis import analyse, compare, rank_all, to_latex
from everlearn.bench.scores import Entry
from everlearn.errors import ConfigError
from everlearn.evaluation.stats import Interval, paired_seeds
from everlearn.report.table import Grid
from everlearn.runs import run
from everlearn.state import read_json
from support.recipes import plain_recipe


def entry(variant, by_seed, group="", seed=0):
    rng = np.random.default_rng(seed)
    outcomes = [{"task": (rng.random(40) < score).astype(float)} for score in by_seed]
    return Entry(
        group, variant, list(range(len(by_seed))), Interval(np.mean(by_seed), 0, 1), by_seed, outcomes=outcomes
    )


def test_the_files_are_there(done):
    folder = done / "out" / "analysis"
    assert {"analysis.md", "analysis.html", "table.tex", "cells.csv", "scores.csv", "comparisons.csv", "ranks.png",
            "curves.png", "pareto_kept.png", "reports"} <= {path.name for path in folder.iterdir()}  # fmt: skip
    assert (folder / "reports" / "group-1" / "report.html").exists()
    text = (folder / "analysis.md").read_text(encoding="utf-8")
    assert "6 cells are done, 2 are not" in text
    assert "Failed" in text
    assert "l2p/seed-0" in text


def test_seeds_apart_are_summed_up_as_a_run_over_all_of_them(done, tmp_path):
    run(plain_recipe(["replay"], seeds=[0, 1]), tmp_path / "whole")
    summary = read_json(tmp_path / "whole" / "results.json")["summary"]["average_accuracy"]
    with open(done / "out" / "analysis" / "scores.csv", encoding="utf-8") as file:
        (row,) = [row for row in csv.DictReader(file) if row["variant"] == "replay"]
    assert [float(row[name]) for name in ("score", "low", "high")] == [
        summary[name] for name in ("mean", "low", "high")
    ]


def test_comparisons_are_paired_on_seeds_and_items_and_corrected_over_all():
    entries = [entry("a", [0.5, 0.5], seed=1), entry("b", [0.9, 0.9], seed=2), entry("c", [0.5, 0.6], seed=3)]
    found = compare(entries)
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    rows = [[end["task"] for end in one.outcomes] for one in entries]
    assert found[0].p_value == paired_seeds(rows[0], rows[1]).p_value
    assert found[0].corrected >= found[0].p_value
    assert max(found, key=lambda one: one.p_value).corrected == max(one.corrected for one in found)


def test_nothing_is_compared_across_groups():
    assert compare([entry("a", [0.5], "x"), entry("b", [0.9], "y")]) == []


def test_ranks_are_over_groups_where_there_are_three_and_over_seeds_else():
    one = [entry("a", [0.5, 0.6]), entry("b", [0.7, 0.8])]
    ranks, what = rank_all(one)
    assert (what, ranks.n_blocks, ranks.mean) == ("seeds", 2, (2.0, 1.0))
    three = [entry(name, [0.5 + place], group) for group in "xyz" for place, name in enumerate("ab")]
    ranks, what = rank_all(three)
    assert (what, ranks.n_blocks) == ("groups", 3)
    assert rank_all([entry("a", [0.5, 0.6])]) is None


def test_latex_is_escaped():
    text = to_latex(Grid("t", ("", "50% of_x"), (("a&b", "−0.5\n[−1, 0]"),)))
    assert r"50\% of\_x" in text
    assert r"a\&b & $-$0.5 [$-$1, 0] \\" in text


def test_a_folder_without_an_experiment_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no experiment"):
        analyse(tmp_path)


def test_an_online_run_and_one_that_tells_no_score_are_read(llama, tmp_path):
    from everlearn.bench.scores import read_entry, score_of

    recipe = {
        "source": {"name": "support.sources:Sums"}, "model": {"name": str(llama), "adapter": {"rank": 2}},
        "device": "cpu", "episodes": 2, "evaluation": {"n": 4, "interval": 1}, "seeds": [0],
    }  # fmt: skip
    run(recipe, tmp_path / "online")
    found = read_entry("", "none", {0: tmp_path / "online"})
    assert found.score.value == score_of(tmp_path / "online")
    assert len(found.outcomes[0]["held out"]) == 4
    assert len(found.curve[0]) >= 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text('{"complete": true}')
    assert score_of(Path(tmp_path / "other")) is None

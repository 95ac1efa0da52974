"""From made-up trials to the table, the sentences and the page."""

import re

import numpy as np
import pytest
from tests.report.conftest import joint_lines, write_log

from everlearn.evaluation.stats import paired_difference
from everlearn.report.advice import (
    advice_grid,
    caveats,
    read_advice,
    recipe_header,
    score_difference,
    sentences,
    write_advice,
)
from everlearn.report.views import load_views

TASKS = ["a", "b", "c"]
SETTING = "3 tasks, at most 64 training rows and 60 evaluation items of each, seed 0."


@pytest.fixture
def trials(make_run, tmp_path):
    return {
        "none": make_run("none", TASKS, forget=0.6),
        "replay": make_run("replay", TASKS, forget=0.0, replay=2048),
        "big": make_run("big", TASKS, forget=0.0, big=10**6),
        "joint": write_log(tmp_path / "joint", joint_lines({0: TASKS}, 0.9, 60)),
    }


def test_the_cheaper_of_equals_is_recommended(trials):
    advice = read_advice(trials, SETTING, {"lwf": "the budget had run out"})
    assert advice.choice.chosen == "replay"
    assert advice.choice.front == ("none", "replay")  # big keeps more and is no better
    assert advice.of_joint
    assert advice.n_items == 180
    text = " ".join(sentences(advice) + caveats(advice))
    assert "Recommended: replay." in text
    assert "on the same 180 items" in text
    assert "not significant" not in text
    assert "Not tried: lwf (the budget had run out)." in text


def test_no_difference_is_said_to_be_none(make_run):
    alike = {name: make_run(name, TASKS, forget=0.3, **kept) for name, kept in (("none", {}), ("ewc", {"ewc": 5}))}
    advice = read_advice(alike, SETTING, {})
    assert advice.choice.chosen == "none"
    assert advice.differences["ewc"].low < 0 < advice.differences["ewc"].high
    assert not advice.of_joint
    slightly = {"none": alike["none"], "ewc": make_run("better", TASKS, forget=0.28, ewc=5)}
    advice = read_advice(slightly, SETTING, {})
    assert advice.choice.best == "ewc"
    assert "not significant with 180 items" in " ".join(sentences(advice))


def test_one_task_of_right_and_wrong_is_the_paired_difference(make_run):
    views = load_views({name: make_run(name, ["a"], forget=0.0) for name in ("x", "y")})
    first, second = (view.started[0] for view in views)
    second.outcomes[0, "a"][:] = np.roll(second.outcomes[0, "a"], 1)
    found = score_difference(first, second)
    reference = paired_difference(first.outcomes[0, "a"], second.outcomes[0, "a"])
    assert (found.value, found.low, found.high) == pytest.approx((reference.difference, reference.low, reference.high))


def test_scores_that_are_no_means_of_outcomes_are_not_paired(make_run):
    views = load_views({name: make_run(name, ["a"], forget=0.0) for name in ("x", "y")})
    first, second = (view.started[0] for view in views)
    paired = score_difference(first, second)
    second.outcomes[0, "a"][:] = 0.5
    alone = score_difference(first, second)
    assert alone.high - alone.low > paired.high - paired.low


def test_the_grid_has_a_row_for_each(trials):
    grid = advice_grid(read_advice(trials, SETTING, {}), intervals=False)
    cells = {row[0].split()[-1]: row for row in grid.rows}
    assert {row[0] for row in grid.rows} == {"● none", "★ replay", "○ big", "joint"}
    assert cells["none"][2] == ""
    assert cells["replay"][5] == "2 KiB"


def test_the_page_stands_alone(trials, tmp_path):
    advice = read_advice(trials, SETTING, {"<b>": "no <time>"})
    recipe = tmp_path / "advice" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text("strategies: [replay]")
    write_advice(advice, recipe, tmp_path / "advice")
    page = (tmp_path / "advice" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import|<script|<link", page)
    assert "data:image/png;base64," in page
    assert "Recommended: replay." in page
    assert "&lt;time&gt;" in page
    header = "\n".join(recipe_header(advice, recipe))
    assert f"everlearn run {recipe}" in header
    assert SETTING in header

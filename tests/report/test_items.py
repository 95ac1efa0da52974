"""Items that were lost and gained, in the report of a run."""

import json

import pytest
from tests.report.conftest import header_line, score_line, write_log
from tests.report.test_html import EVIL, parsed

from everlearn.errors import StateError
from everlearn.report.html import write_report
from everlearn.report.items import MOST_SHOWN, flips_grid, items_grid, keep_items, read_items
from everlearn.report.views import load_views
from support.tasks import classify_task, prompt_task, tensor_task

N = 13


def log(folder, hostile="wrong", answers=True):
    """A run in which all items of task a are lost, and two of them were never right."""
    outcomes = [1.0] * (N - 1) + [0.0], [0.0] * (N - 1) + [1.0]
    said = ["right"] * (N - 1) + [hostile], [hostile] * (N - 1) + ["right"]
    lines = [header_line({0: ["a", "b"]})]
    for after, task in enumerate("ab"):
        line = score_line(0, after, task, "a", outcomes[after])
        lines.append({**line, "answers": said[after]} if answers else line)
    lines.append(score_line(0, 1, "b", "b", [1.0, 0.0]))
    write_log(folder, lines)
    (folder / "items").mkdir()
    items = {"a": [[f"question {i} {hostile}", "right"] for i in range(N)], "b": [["q", "r"]] * 2}
    (folder / "items" / "seed-0.json").write_text(json.dumps(items))
    return folder


def test_the_page_shows_both_answers_and_counts_the_rest(tmp_path):
    (view,) = load_views({"run": log(tmp_path)})
    grid = items_grid(view)
    assert grid.columns == ("task", "question", "right answer", "when learned", "in the end")
    assert len(grid.rows) == MOST_SHOWN + 1
    assert grid.rows[0] == ("a\nlost", "question 0 wrong", "right", "right\nright", "wrong\nwrong")
    assert grid.rows[-1] == ("a\ngained", "question 12 wrong", "right", "wrong\nwrong", "right\nright")
    assert grid.note == "Seed 0. a: 12 lost (10 shown), 1 gained."


def test_hostile_answers_are_text(tmp_path):
    hostile = "".join(EVIL[:3]) + "\x1b[2J\u202e\x00" + "y" * 1_000_000
    write_report({"run": log(tmp_path / "run", hostile)}, tmp_path / "report")
    page, tags = parsed(tmp_path / "report")
    assert {tag for tag, _ in tags.found}.isdisjoint({"script", "iframe"})
    assert not any("onerror" in attrs for _, attrs in tags.found)
    assert not any(mark in page for mark in ("\x1b", "\u202e", "\x00"))
    assert r"\x1b[2J\u202e\x00yyy" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "Items of run that were lost and gained" in page
    assert len(page) < 1_000_000


def test_runs_without_answers_or_items_have_no_such_table(tmp_path):
    bare = log(tmp_path / "bare")
    (bare / "items" / "seed-0.json").unlink()
    for folder in (log(tmp_path / "old", answers=False), bare):
        (view,) = load_views({"run": folder})
        assert items_grid(view).rows == ()
    assert flips_grid("t", [], ("a", "b")).rows == ()


def test_items_are_kept_once_for_tasks_that_are_answered_in_words(tmp_path):
    keep_items(tmp_path, 3, [prompt_task(0), classify_task(1), tensor_task(0)])
    items = read_items(tmp_path, 3)
    assert list(items) == ["add_0", "classify_1"]
    assert items["add_0"][0] == ("t0 12+1=", "13")
    assert items["classify_1"][0][1] == "red_1"
    keep_items(tmp_path, 3, [])
    assert read_items(tmp_path, 3) == items
    assert read_items(tmp_path, 4) == {}
    for damage in ("[]", '{"a": [["q"]]}', '{"a": 1}'):
        (tmp_path / "items" / "seed-3.json").write_text(damage)
        with pytest.raises(StateError, match="is no list of items for each task"):
            read_items(tmp_path, 3)

import pytest

from everlearn.evaluation.stats import mean_interval, paired_difference, wilson_interval
from everlearn.report.meta import draw_meta, meta_grid, summarise_meta


def line(seed, start, steps, outcomes, task="a"):
    return {
        "seed": seed, "start": start, "steps": steps, "task": task, "metric": "exact_match", "outcomes": outcomes,
    }  # fmt: skip


LINES = [
    line(0, "plain", 5, [0.0, 0.0, 1.0, 0.0]),
    line(0, "meta", 5, [1.0, 0.0, 1.0, 0.0]),
    line(1, "plain", 5, [0.0, 0.0, 0.0, 0.0]),
    line(1, "meta", 5, [1.0, 1.0, 1.0, 0.0]),
]


def test_differences_are_paired_by_seed():
    summary = summarise_meta(LINES)
    wanted = mean_interval([0.25, 0.75])
    found = summary["differences"]["meta - plain"]["5"]
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert summary["scores"]["meta"]["5"]["mean"] == pytest.approx(0.625)
    assert (summary["n_seeds"], summary["n_items"]) == (2, 4)


def test_one_seed_is_paired_by_item():
    summary = summarise_meta(LINES[:2])
    wanted = paired_difference(LINES[0]["outcomes"], LINES[1]["outcomes"])
    found = summary["differences"]["meta - plain"]["5"]
    assert (found["mean"], found["low"], found["high"]) == (wanted.difference, wanted.low, wanted.high)
    assert summary["scores"]["plain"]["5"]["low"] == wilson_interval(1, 4).low


def test_tasks_weigh_alike_whatever_their_size():
    more = [*LINES, line(0, "plain", 5, [1.0], "b"), line(0, "meta", 5, [1.0], "b")]
    more += [line(1, "plain", 5, [0.0], "b"), line(1, "meta", 5, [1.0], "b")]
    assert summarise_meta(more)["scores"]["plain"]["5"]["mean"] == pytest.approx((0.625 + 0.0) / 2)


def test_table_and_picture_show_all():
    lines = [*LINES, *({**one, "steps": 0} for one in LINES)]
    summary = summarise_meta(lines)
    grid = meta_grid(summary)
    assert grid.columns == ("start", "0 steps", "5 steps")
    assert [row[0] for row in grid.rows] == ["plain", "meta", "meta - plain"]
    assert "2 seeds" in grid.note
    axes = draw_meta(summary).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "meta"]
    assert list(axes.get_lines()[1].get_ydata()) == [0.625, 0.625]


def test_runs_without_a_learned_start_have_no_differences():
    assert summarise_meta([one for one in LINES if one["start"] == "plain"])["differences"] == {}

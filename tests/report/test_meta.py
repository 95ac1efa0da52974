import pytest

from everlearn.evaluation.stats import (
    Interval,
    combine_intervals,
    mean_interval,
    paired_difference,
    seeds_interval,
    wilson_interval,
)
from everlearn.report.meta import draw_meta, meta_grid, summarise_meta


def line(seed, start, steps, outcomes, task="a", draw=0, loss=1.0):
    return {
        "seed": seed, "start": start, "steps": steps, "task": task, "metric": "exact_match", "outcomes": outcomes,
        "draw": draw, "loss": loss,
    }  # fmt: skip


LINES = [
    line(0, "plain", 5, [0.0, 0.0, 1.0, 0.0]),
    line(0, "meta", 5, [1.0, 0.0, 1.0, 0.0]),
    line(1, "plain", 5, [0.0, 0.0, 0.0, 0.0]),
    line(1, "meta", 5, [1.0, 1.0, 1.0, 0.0]),
]


def paired(before, after):
    found = paired_difference(before["outcomes"], after["outcomes"])
    return Interval(found.difference, found.low, found.high)


def test_differences_are_paired_by_seed_and_item():
    summary = summarise_meta(LINES)
    wanted = seeds_interval([paired(*LINES[:2]), paired(*LINES[2:])], (-1.0, 1.0))
    assert wanted.high == 1.0
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
    one_seed = summarise_meta([one for one in more if one["seed"] == 0])
    found, wanted = one_seed["scores"]["plain"]["5"], combine_intervals([wilson_interval(1, 4), wilson_interval(1, 1)])
    assert (found["mean"], found["low"], found["high"]) == (wanted.value, wanted.low, wanted.high)
    change = one_seed["differences"]["meta - plain"]["5"]
    wanted = combine_intervals([paired(LINES[0], LINES[1]), paired(more[4], more[5])])
    assert (change["mean"], change["low"]) == (pytest.approx(0.125), pytest.approx(wanted.low))


def test_table_and_picture_show_all():
    lines = [*LINES, *({**one, "steps": 0} for one in LINES)]
    summary = summarise_meta(lines)
    grid = meta_grid(summary)
    assert grid.columns == ("start", "0 steps", "5 steps")
    names = ["plain", "meta", "meta - plain"]
    assert [row[0] for row in grid.rows] == [*names, *(f"loss: {name}" for name in names)]
    assert "2 seeds" in grid.note
    axes, losses = draw_meta({"run": summary}).axes
    assert list(losses.get_lines()[0].get_ydata()) == [1.0, 1.0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "meta"]
    assert list(axes.get_lines()[1].get_ydata()) == [0.625, 0.625]


def test_runs_without_a_learned_start_have_no_differences():
    assert summarise_meta([one for one in LINES if one["start"] == "plain"])["differences"] == {}


def test_draws_of_rows_are_averaged_within_a_seed():
    again = [line(0, "plain", 5, [1.0, 0.0, 1.0, 0.0], draw=1), line(0, "meta", 5, [1.0, 1.0, 1.0, 0.0], draw=1)]
    one = summarise_meta([*LINES[:2], *again])
    wanted = paired_difference([0.5, 0.0, 1.0, 0.0], [1.0, 0.5, 1.0, 0.0])
    found = one["differences"]["meta - plain"]["5"]
    assert (found["mean"], found["low"], found["high"]) == (wanted.difference, wanted.low, wanted.high)
    assert one["n_items"] == 4
    both = summarise_meta([*LINES, *again])["differences"]["meta - plain"]["5"]
    assert both["mean"] == pytest.approx((0.25 + 0.75) / 2)


def test_losses_have_intervals_over_seeds_alone_and_what_blew_up_is_not_known():
    lines = [line(seed, start, 5, [1.0], loss=loss) for seed, start, loss in
             ((0, "plain", 2.0), (1, "plain", 3.0), (0, "meta", 1.0), (1, "meta", 1.5))]  # fmt: skip
    wanted = mean_interval([-1.0, -1.5])
    found = summarise_meta(lines)["loss"]["differences"]["meta - plain"]["5"]
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((wanted.value, wanted.low, wanted.high))
    one_seed = summarise_meta([lines[0], lines[2]])["loss"]["differences"]["meta - plain"]["5"]
    assert one_seed == {"mean": -1.0, "low": None, "high": None}
    summary = summarise_meta([lines[0], lines[1], lines[2], {**lines[3], "loss": None}])
    assert summary["loss"]["scores"]["meta"]["5"] == {"mean": None, "low": None, "high": None}
    assert draw_meta({"run": summary}).axes[1].get_lines()[1].get_xdata().size == 0


def test_each_held_out_task_has_its_own_numbers():
    more = [*LINES, *({**one, "task": "b", "outcomes": [1.0]} for one in LINES)]
    summary = summarise_meta(more)
    assert summary["by_task"]["a"]["differences"] == summarise_meta(LINES)["differences"]
    assert summary["by_task"]["b"]["scores"]["plain"]["5"]["mean"] == 1.0
    assert "b: meta - plain" in [row[0] for row in meta_grid(summary).rows]

from itertools import pairwise

import pytest
from tests.report.conftest import header_line, score_line, write_log

from everlearn.evaluation.stats import paired_difference, paired_seeds
from everlearn.report.compare import paired_comparisons
from everlearn.report.views import load_views

GOOD, BAD = [1, 1, 1, 1, 0], [1, 0, 0, 1, 0]


def run_of(folder, outcomes_by_seed, recipe=None):
    """Write a run of one task, its final outcomes for each seed."""
    lines = [header_line({seed: ["a"] for seed in range(len(outcomes_by_seed))}, recipe)]
    lines += [score_line(seed, 0, "a", "a", outcomes) for seed, outcomes in enumerate(outcomes_by_seed)]
    return write_log(folder, lines)


def test_one_seed_pairs_the_items(tmp_path):
    views = load_views({"first": run_of(tmp_path / "1", [BAD]), "second": run_of(tmp_path / "2", [GOOD])})
    (row,) = paired_comparisons(views)
    expected = paired_difference(BAD, GOOD)
    assert (row.first, row.second, row.task, row.over) == ("first", "second", "a", "5 items")
    assert row.difference == pytest.approx(0.4)
    assert (row.low, row.high, row.p_value) == (expected.low, expected.high, expected.p_value)


def test_several_seeds_pair_seeds_and_items(tmp_path):
    first = run_of(tmp_path / "1", [BAD, BAD, BAD])
    outcomes = [GOOD, BAD, [1, 1, 0, 1, 0]]
    second = run_of(tmp_path / "2", outcomes)
    (row,) = paired_comparisons(load_views({"first": first, "second": second}))
    assert row.difference == pytest.approx(0.2)
    expected = paired_seeds([BAD] * 3, outcomes)
    assert (row.low, row.high, row.p_value) == (expected.low, expected.high, expected.p_value)
    assert (row.over, row.test) == ("3 seeds × 5 items", "seeds × items")


def test_two_seeds_that_coincide_prove_nothing(tmp_path):
    first, second = run_of(tmp_path / "1", [BAD, BAD]), run_of(tmp_path / "2", [[1, 1, 0, 1, 0]] * 2)
    (row,) = paired_comparisons(load_views({"first": first, "second": second}))
    assert row.difference == pytest.approx(0.2)
    assert row.low < 0 < row.high
    assert row.p_value > 0.3


def test_all_tasks_pool_their_items(make_run):
    views = load_views({"a": make_run("a", ["x", "y"], forget=0.5), "b": make_run("b", ["x", "y"], forget=0.0)})
    overall, *by_task = paired_comparisons(views)
    assert overall.task is None
    assert overall.over == "120 items"
    assert overall.difference == pytest.approx(sum(row.difference for row in by_task) / 2)
    assert [row.task for row in by_task] == ["x", "y"]


def test_other_items_are_not_compared(tmp_path):
    base = run_of(tmp_path / "1", [BAD])
    longer = run_of(tmp_path / "2", [[*GOOD, 1]])
    elsewhere = run_of(tmp_path / "3", [GOOD], {"stream": {"name": "another"}})
    assert paired_comparisons(load_views({"base": base, "longer": longer, "elsewhere": elsewhere})) == []


def test_many_runs_are_compared_with_the_first(tmp_path):
    runs = {str(i): run_of(tmp_path / str(i), [BAD]) for i in range(6)}
    rows = paired_comparisons(load_views(runs))
    assert {row.first for row in rows} == {"0"}
    assert [row.second for row in rows] == ["1", "2", "3", "4", "5"]
    assert all(left.p_value == right.p_value == 1.0 for left, right in pairwise(rows))

"""The pictures of an experiment, by what stands in them."""

from dataclasses import replace

import pytest

from everlearn.bench.pictures import draw_curves, draw_pareto, draw_ranks, pareto
from everlearn.bench.ranks import rank
from everlearn.bench.scores import Entry
from everlearn.evaluation.stats import Interval


def entry(variant, score, train_s, curve):
    return Entry("", variant, [0], Interval(score, score - 0.1, score + 0.1), [score], train_s=train_s, curve=[curve])


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 0.5), (2, 0.9), (3, 0.7)], [0, 1]),
        ([(2, 0.5), (1, 0.5)], [1]),
        ([(1, 0.4), (1, 0.6)], [1]),
        ([(3, 0.1)], [0]),
    ],
)
def test_the_front_holds_what_none_beats(points, front):
    assert pareto(points) == front


def test_ranks_name_each_method_with_its_rank():
    figure = draw_ranks(rank(["one", "two", "three"], [[3, 2, 1]] * 12))
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"one  1.00", "two  2.00", "three  3.00"} <= texts


def test_a_cost_that_is_alike_or_unknown_is_not_drawn():
    own = [entry("a", 0.5, 10.0, [0.9, 0.5]), entry("b", 0.8, 30.0, [0.9, 0.8])]
    assert draw_pareto({"": own}, "memory_bytes", "memory") is None
    assert draw_pareto({"": [replace(one, train_s=3.0) for one in own]}, "train_s", "time") is None
    figure = draw_pareto({"": own}, "train_s", "seconds")
    assert {text.get_text() for text in figure.axes[0].texts} == {"a", "b"}


def test_curves_have_a_line_each_and_a_level_for_one_step():
    own = [entry("a", 0.5, 1.0, [0.9, 0.5]), entry("joint", 0.8, 1.0, [0.8])]
    lines = draw_curves({"": own}).axes[0].lines
    assert list(lines[0].get_ydata()) == [0.9, 0.5]
    assert list(lines[1].get_ydata()) == [0.8, 0.8]
    assert draw_curves({"": [own[1]]}) is None

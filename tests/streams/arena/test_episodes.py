"""The arena as a source of episodes: order, curricula, what is held out, going on."""

import json

import pytest

from everlearn.errors import ConfigError
from everlearn.streams.arena.episodes import ArenaSource
from everlearn.streams.source import content_of


def drawn(feed, n, right=True):
    rows = []
    for _ in range(n):
        rows.append(feed.next())
        feed.answered(rows[-1], right)
    return rows


def test_types_and_difficulties_are_mixed_and_seeded():
    source = ArenaSource(types=("math", "causal"), difficulty=(1, 2))
    rows = drawn(source.feed(0, 60), 60)
    assert {(row["type"], row["difficulty"]) for row in rows} == {(t, d) for t in ("math", "causal") for d in (1, 2)}
    assert drawn(source.feed(0, 60), 60) == rows
    assert drawn(source.feed(1, 60), 60) != rows
    assert source.feed(0, 60).known(60) == rows


def test_held_out_problems_are_different_and_never_come_up():
    source = ArenaSource(difficulty=1)
    held_out = source.held_out(52)
    assert len({content_of(row) for row in held_out}) == 52
    assert [[row["type"] for row in held_out].count(name) for name in source.types] == [11, 11, 10, 10, 10]
    assert not {content_of(row) for row in held_out} & {content_of(row) for row in drawn(source.feed(0, 500), 500)}


def test_sequential_order_gives_each_type_its_share():
    source = ArenaSource(types=("math", "causal", "logic"), order="sequential")
    types = [row["type"] for row in drawn(source.feed(0, 10), 10)]
    assert types == ["math"] * 3 + ["causal"] * 3 + ["logic"] * 4


def test_a_ramp_takes_the_runs_episodes():
    source = ArenaSource(curriculum={"name": "ramp"})
    assert [row["difficulty"] for row in drawn(source.feed(0, 10), 10)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    each = ArenaSource(types=("math", "causal"), order="sequential", curriculum={"name": "ramp", "end_difficulty": 2})
    assert [row["difficulty"] for row in drawn(each.feed(0, 8), 8)] == [1, 1, 2, 2, 1, 1, 2, 2]


def test_answers_move_the_curriculum_and_its_state_goes_on():
    source = ArenaSource(curriculum={"name": "success", "window": 3})
    feed = source.feed(0, 40)
    assert drawn(feed, 9)[-1]["difficulty"] == 3
    again = source.feed(0, 40)
    again.load_state(json.loads(json.dumps(feed.state())))
    assert drawn(again, 9) == drawn(feed, 9)


def test_settings_that_contradict_are_refused():
    with pytest.raises(ConfigError, match=r"source.difficulty: stands beside ramp. Got 1"):
        ArenaSource(difficulty=1, curriculum={"name": "ramp"})
    with pytest.raises(ConfigError, match=r"source.order: is unknown. Got 'random'"):
        ArenaSource(order="random")
    with pytest.raises(ConfigError, match="is no curriculum"):
        ArenaSource(curriculum={"name": "ramps"})

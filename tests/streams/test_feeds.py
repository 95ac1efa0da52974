"""Rows as they come and drifting problems as sources of an online run."""

import json
import threading

import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.streams.feeds import DriftSource, RowsSource
from everlearn.streams.source import content_of


def write_rows(path, numbers):
    path.write_text("".join(json.dumps({"prompt": f"{n}+1=", "completion": str(n + 1)}) + "\n" for n in numbers))
    return str(path)


@pytest.fixture
def source(tmp_path):
    held_out = write_rows(tmp_path / "held.jsonl", range(50, 54))
    return RowsSource(write_rows(tmp_path / "rows.jsonl", range(5)), held_out_path=held_out)


def test_the_rows_of_a_file_in_their_order(source):
    feed = source.feed(0, 10)
    assert [row["prompt"] for row in iter(feed.next, None)] == [f"{n}+1=" for n in range(5)]
    assert [row["prompt"] for row in source.held_out(3)] == ["50+1=", "51+1=", "52+1="]
    assert [row["prompt"] for row in source.feed(0, 10).known(2)] == ["0+1=", "1+1="]


def test_a_feed_goes_on_behind_the_last_row_given(source):
    feed = source.feed(0, 10)
    feed.next()
    feed.next()
    again = source.feed(0, 10)
    again.load_state(json.loads(json.dumps(feed.state())))
    assert again.next()["prompt"] == "2+1="


def test_a_growing_file_is_waited_for_until_it_is_stopped(source, tmp_path):
    feed = RowsSource(source.path, held_out_path=source.held_out_path, follow=True).feed(0, 10)
    for _ in range(5):
        feed.next()

    came = threading.Event()

    def add():
        with open(source.path, "a") as file:
            file.write(json.dumps({"prompt": "late", "completion": "yes"}) + "\n")
        came.wait()
        feed.stop()

    adding = threading.Thread(target=add)
    adding.start()
    assert feed.next()["prompt"] == "late"
    came.set()
    assert feed.next() is None
    adding.join()


def test_bad_rows_and_options_are_named(tmp_path, source):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(StreamError, match=r"bad.jsonl line 1: bad row"):
        RowsSource(str(tmp_path / "bad.jsonl"), held_out_path=source.held_out_path).feed(0, 1).next()
    with pytest.raises(ConfigError, match=r"source.follow: has nothing to follow. Got '-'"):
        RowsSource("-", held_out_path=source.held_out_path, follow=True)
    with pytest.raises(ConfigError, match=r"source.idle_s: is out of range. Got 1e\+30"):
        RowsSource(source.path, held_out_path=source.held_out_path, idle_s=1e30)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"source.held_out_path: holds no row"):
        RowsSource(source.path, held_out_path=str(tmp_path / "empty.jsonl")).held_out(3)


def test_a_drifting_source_changes_its_concept_and_holds_problems_of_all_out():
    source = DriftSource(concepts=("comparison", "comparison-opposite"), period=6, n_rows=12)
    feed = source.feed(0, 12)
    rows = list(iter(feed.next, None))
    assert [row["type"] for row in rows] == ["comparison"] * 6 + ["comparison-opposite"] * 6
    held_out = source.held_out(10)
    assert [row["type"] for row in held_out] == ["comparison"] * 5 + ["comparison-opposite"] * 5
    assert not {content_of(row) for row in rows} & {content_of(row) for row in held_out}
    assert [row["prompt"] for row in source.feed(0, 12).known(3)] == [row["prompt"] for row in rows[:3]]
    assert source.feed(1, 12).next()["prompt"] != rows[0]["prompt"]
    again = source.feed(0, 12)
    again.load_state({"place": 7})
    assert again.next() == rows[7]

"""Tasks and their items: they grow with versions, are taken out or corrected; their files never change."""

from pathlib import Path

import pytest

from everlearn.errors import StateError, StreamError
from everlearn.home.tasks import (
    TaskCard,
    add_items,
    item_of,
    keep_own,
    known_task,
    load_own,
    load_task,
    load_tasks,
    new_items,
    replace_items,
    revised,
    task_before,
    tasks_with_own,
)

CARD = TaskCard("t", "classify", ("no", "yes"), metrics=("accuracy",))
ROWS = [{"text": f"e {i}", "label": i % 2} for i in range(4)]


def test_items_grow_and_never_change(tmp_path: Path) -> None:
    add_items(tmp_path / "t", CARD, ROWS, 1)
    stored, present = load_task(tmp_path / "t")
    assert (list(stored.items), len(present)) == (["evaluation-000001.jsonl"], 4)
    first = (tmp_path / "t" / "evaluation-000001.jsonl").read_bytes()
    fresh, n_differing = new_items([*ROWS[:2], {"text": "e 3 ", "label": 0}, {"text": "n", "label": 1}], present)
    assert (fresh, n_differing) == ([{"text": "n", "label": 1}], 1)
    for _ in range(2):  # twice, as after a crash in between
        add_items(tmp_path / "t", stored, fresh, 4)
    stored, grown = load_task(tmp_path / "t")
    assert grown == [*present, {"text": "n", "label": 1}]
    assert (tmp_path / "t" / "evaluation-000001.jsonl").read_bytes() == first
    assert list(load_tasks(tmp_path)) == ["t"]


def test_damaged_items_are_refused(tmp_path: Path) -> None:
    add_items(tmp_path / "t", CARD, ROWS, 1)
    path = tmp_path / "t" / "evaluation-000001.jsonl"
    path.write_text(path.read_text().replace("e 1", "e 9"))
    with pytest.raises(StateError, match=r"evaluation-000001\.jsonl: is damaged"):
        load_tasks(tmp_path)


def test_a_version_s_items_come_in_once(tmp_path: Path) -> None:
    add_items(tmp_path / "t", CARD, ROWS, 1)
    card, _ = load_task(tmp_path / "t")
    assert card.sources == (1,)
    add_items(tmp_path / "t", card, [{"text": "again", "label": 0}], 1)
    assert load_task(tmp_path / "t") == (card, ROWS)


def test_a_refused_attempt_of_before_is_not_what_a_home_knew(tmp_path: Path) -> None:
    assert task_before(tmp_path / "t", CARD, 3) == (CARD, [])
    add_items(tmp_path / "t", CARD, ROWS, 1)
    known = load_task(tmp_path / "t")
    assert task_before(tmp_path / "t", CARD, 3) == (CARD, [])
    assert task_before(tmp_path / "t", known[0], 3) == known
    add_items(tmp_path / "t", CARD, [{"text": "mended", "label": 0}], 3)
    assert task_before(tmp_path / "t", CARD, 3) == load_task(tmp_path / "t")
    assert load_task(tmp_path / "t")[1] == [{"text": "mended", "label": 0}]


def test_an_item_is_named_by_content_and_answer() -> None:
    assert item_of({"text": "a", "label": 1}) == item_of({"label": 1, "text": "a"})
    assert len({item_of(row) for row in ({"text": "a", "label": 1}, {"text": "a", "label": 0}, {"text": "A"})}) == 3


def test_revised_items_take_the_place_of_all(tmp_path: Path) -> None:
    add_items(tmp_path / "t", CARD, ROWS, 1)
    files = {path.name: path.read_bytes() for path in (tmp_path / "t").glob("evaluation*")}
    left, n_changed = revised("t", ROWS, [{"text": "e 1", "label": 0}], correct=True)
    assert (n_changed, [row["label"] for row in left]) == (1, [0, 0, 0, 1])
    replace_items(tmp_path / "t", load_task(tmp_path / "t")[0], left)
    left, n_changed = revised("t", left, ROWS[2:], correct=False)
    assert n_changed == 2
    replace_items(tmp_path / "t", load_task(tmp_path / "t")[0], left)
    card, present = known_task(tmp_path, "t")
    assert (present, card.n_revisions, len(card.items)) == (left, 2, 1)
    assert {name: (tmp_path / "t" / name).read_bytes() for name in files} == files
    add_items(tmp_path / "t", card, [{"text": "new", "label": 1}], 2)
    assert load_task(tmp_path / "t")[1] == [*left, {"text": "new", "label": 1}]


def test_what_can_not_be_revised_is_refused_with_the_count() -> None:
    other = {"text": "e 1", "label": 0}
    with pytest.raises(StreamError, match=r"rows are no evaluation items of the task\. Got 2\."):
        revised("t", ROWS, [ROWS[0], {"text": "x", "label": 0}, {"text": "y", "label": 0}], correct=True)
    with pytest.raises(StreamError, match=r"rows differ from the items that they name\. Got 1\. Use --correct"):
        revised("t", ROWS, [ROWS[0], other], correct=False)
    with pytest.raises(StreamError, match="rows give one item different answers"):
        revised("t", ROWS, [ROWS[1], other], correct=True)
    with pytest.raises(StreamError, match=r"no evaluation item would be left\. Got 4"):
        revised("t", ROWS, ROWS, correct=False)
    assert revised("t", ROWS, ROWS, correct=True) == (ROWS, 0)


def test_unknown_task_is_named(tmp_path: Path) -> None:
    add_items(tmp_path / "colours", CARD, ROWS, 1)
    with pytest.raises(StateError, match=r"knows no such task\. Got 'colour'\. Did you mean 'colours'"):
        known_task(tmp_path, "colour")


def test_a_refused_version_s_own_task_stands_beside_the_home_s(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    assert load_own(tmp_path / "3") is None
    assert tasks_with_own({}, {3: tmp_path / "3"}) == {}
    keep_own(tmp_path / "3", CARD, [ROWS[0], {"text": "own", "label": 1}])
    assert tasks_with_own({}, {3: tmp_path / "3"})["t"][1] == [ROWS[0], {"text": "own", "label": 1}]
    found = tasks_with_own({"t": (CARD, ROWS)}, {3: tmp_path / "3"})
    assert found["t"] == (CARD, [*ROWS, {"text": "own", "label": 1}])
    mended = TaskCard("t", "classify", ("maybe", "no", "yes"), metrics=("accuracy",))
    with pytest.raises(StateError, match=r"version 3: took task 't' for something else .*'labels': \('no', 'yes'\)"):
        tasks_with_own({"t": (mended, ROWS)}, {3: tmp_path / "3"})
    alone = tasks_with_own({"t": (mended, ROWS)}, {3: tmp_path / "3"}, own_counts=True)
    assert (alone["t"][0].labels, len(alone["t"][1])) == (("no", "yes"), 2)

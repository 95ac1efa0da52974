from collections import Counter

import pytest

from everlearn.config import Recipe, from_mapping
from everlearn.errors import ConfigError, StreamError
from everlearn.streams.domains.dsc import Dsc

PRODUCTS = ("Baby", "Books", "Beauty")


@pytest.fixture
def folder(tmp_path, write):
    for product in PRODUCTS:
        for role, start, n in (("train", 0, 12), ("test", 12, 6)):
            rows = [
                {"text": f"{product} {i}", "label": ("negative", "positive")[i % 3 == 0]}
                for i in range(start, start + n)
            ]
            write(f"{product}/{role}.jsonl", rows)
    return tmp_path


def _texts(rows):
    return [row["text"] for row in rows]


def test_a_list_of_tasks_is_their_order(folder):
    stream = Dsc(folder=str(folder), order=["Books", "Baby"]).build()
    assert stream.name == "dsc"
    assert [task.name for task in stream] == ["Books", "Baby"]
    assert {(task.kind, task.labels, len(task.train), len(task.evaluation)) for task in stream} == {
        ("classify", ("negative", "positive"), 12, 6)
    }


def test_published_orders_are_named_by_number_or_text():
    assert Dsc(order=1).tasks() == Dsc(order="1").tasks() == Dsc.orders["1"]
    assert Dsc().tasks() == tuple(Dsc.entries)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"order": 9}, "stream.order: is no order of this stream. Got 9. Orders: 1"),
        ({"order": ["Book"]}, "Did you mean 'Books'"),
        ({"order": ["Books", "Books"]}, "rounds: 2"),
        ({"order": []}, "stream.order: must name tasks"),
        ({"train_rows": 0}, "stream.train_rows: is too small. Got 0"),
        ({"on_bad_row": "drop"}, "Allowed: skip, error"),
        ({"validation_fraction": 1.0}, "stream.validation_fraction: is out of range"),
    ],
)
def test_options_that_cannot_be_are_refused(options, told):
    with pytest.raises(ConfigError, match=told.replace("[", r"\[")):
        Dsc(**options)


def test_tasks_that_are_not_there_are_refused_or_left_out(folder):
    with pytest.raises(StreamError) as caught:
        Dsc(folder=str(folder), order=["Books", "Electronics"]).build()
    assert str(caught.value).startswith("task 'Electronics': its rows are not in the folder.")
    assert "Electronics/train.*" in str(caught.value)
    assert "skip_missing: true" in str(caught.value)
    stream = Dsc(folder=str(folder), order=["Books", "Electronics"], skip_missing=True).build()
    assert [task.name for task in stream] == ["Books"]
    assert "the stream lacks Electronics: no rows there." in stream.tasks[0].notes


def test_a_folder_that_holds_nothing_is_refused(tmp_path):
    with pytest.raises(StreamError, match=r"stream\.folder: there is no such folder"):
        Dsc(folder=str(tmp_path / "no")).build()
    with pytest.raises(StreamError, match="the rows of no task are there"):
        Dsc(folder=str(tmp_path), skip_missing=True).build()


def test_a_stream_without_hub_id_asks_for_a_folder():
    with pytest.raises(StreamError, match=r"no data set of the hub is known for it.*Give folder:"):
        Dsc(order=1).build()


def test_sizes_keep_each_class_its_share_and_draw_the_same_rows(folder):
    sized = Dsc(folder=str(folder), order=["Books"], train_rows=6, test_rows=3)
    task = sized.build().tasks[0]
    assert (len(task.train), len(task.evaluation)) == (6, 3)
    assert Counter(row["label"] for row in task.train) == {0: 4, 1: 2}
    assert _texts(sized.build().tasks[0].train) == _texts(task.train)
    other = Dsc(folder=str(folder), order=["Books"], train_rows=6, data_seed=1).build().tasks[0]
    assert _texts(other.train) != _texts(task.train)


def test_no_row_is_trained_on_that_is_measured_in_any_task(folder, write):
    rows = [{"text": "Books 12", "label": "negative"}, {"text": "Baby 13", "label": "negative"}]
    rows += [{"text": f"new {i}", "label": "positive"} for i in range(3)]
    write("Beauty/train.jsonl", rows)
    write("Beauty/dev.jsonl", [{"text": "new 0", "label": "positive"}, {"text": "Beauty 12", "label": "positive"}])
    stream = Dsc(folder=str(folder), order=list(PRODUCTS)).build()
    beauty = stream.tasks[2]
    assert _texts(beauty.train) == ["new 1", "new 2"]
    assert _texts(beauty.validation) == ["new 0"]
    told = [note for note in beauty.notes if "left out" in note]
    assert [note.rpartition(" ")[2] for note in told] == ["3.", "1."]
    assert not beauty.allow_overlap


def test_a_task_of_nothing_but_test_rows_is_refused(folder, write):
    write("Beauty/train.jsonl", [{"text": "Books 12", "label": "negative"}, {"text": "Baby 13", "label": "positive"}])
    with pytest.raises(StreamError, match="task 'Beauty': no row is left to train on"):
        Dsc(folder=str(folder), order=list(PRODUCTS)).build()


def test_bad_rows_are_told_and_skipped_or_refused(folder, write):
    write(
        "Baby/train.jsonl", [{"text": "", "label": "negative"}, *({"text": f"b{i}", "label": i % 2} for i in range(4))]
    )
    with pytest.warns(UserWarning, match="task 'Baby': skipped 1 of 11 rows"):
        assert len(Dsc(folder=str(folder), order=["Baby"]).build().tasks[0].train) == 4
    with pytest.raises(StreamError, match="text is empty"):
        Dsc(folder=str(folder), order=["Baby"], on_bad_row="error").build()


def test_a_recipe_gives_the_order_to_the_stream_and_the_rest_to_the_schedule(folder):
    own = {"name": "dsc", "folder": str(folder), "order": ["Books", "Baby"], "per_task": 5, "rounds": 2}
    recipe = from_mapping(Recipe, {"stream": own}, "")
    assert recipe.build_stream().order == ["Books", "Baby"]
    assert recipe.schedule_options() == {"per_task": 5, "rounds": 2}
    files = from_mapping(Recipe, {"stream": {"name": "files", "paths": str(folder), "order": ["Books"]}}, "")
    assert files.schedule_options() == {"order": ["Books"]}

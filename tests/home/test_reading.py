"""Tasks: what they are stays so, and training rows stay apart from evaluation items."""

import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.home.reading import check_apart, check_name, check_not_trained, read_new, trained_key
from everlearn.home.tasks import TaskCard
from everlearn.streams.checking import loose_digest_of
from everlearn.types import Task

TRAIN = [{"text": f"t {i}", "label": ("no", "yes")[i % 2]} for i in range(8)]
EVAL = [{"text": f"e {i}", "label": ("no", "yes")[i % 2]} for i in range(4)]


def read(train=TRAIN, evaluation=EVAL, known=None, **options):
    return read_new("t", train, evaluation, None, options, known)


def test_first_reading_makes_a_card() -> None:
    card, task = read(metrics=["f1"])
    assert (card.kind, card.labels, card.metrics, card.declared) == ("classify", ("no", "yes"), ("f1",), False)
    assert (len(task.train), len(task.evaluation)) == (8, 4)


def test_validation_rows_are_held_out_where_they_are_wanted() -> None:
    rows = [{"text": f"r {i}", "label": "no"} for i in range(60)]
    assert read(rows, None)[1].validation is None
    _, task = read_new("t", rows, None, None, {}, None, wants_validation=True)
    assert len(task.validation) > 0


def test_labels_keep_their_numbers() -> None:
    card, _ = read()
    only_yes = [{"text": f"more {i}", "label": "yes"} for i in range(3)]
    _, task = read(only_yes, [{"text": "other", "label": "yes"}], card)
    assert task.labels == ("no", "yes")
    assert {row["label"] for row in task.train} == {row["label"] for row in task.evaluation} == {1}


def test_whole_number_labels_are_matched_by_value() -> None:
    card, _ = read([{"text": f"t{i}", "label": i} for i in (1, 2, 3)], [{"text": "e", "label": 3}])
    assert card.labels == ("1", "2", "3")
    _, task = read([{"text": "more", "label": 3}, {"text": "and more", "label": 2}], [{"text": "f", "label": 2}], card)
    assert [row["label"] for row in task.train] == [2, 1]
    assert task.evaluation[0]["label"] == 1


def test_labels_of_an_older_home_are_matched_by_what_they_mean() -> None:
    card = TaskCard("t", "classify", ("0.0", "1.0"))
    _, task = read([{"text": "a", "label": 1}], [{"text": "b", "label": "0"}], card)
    assert (task.labels, task.train[0]["label"], task.evaluation[0]["label"]) == (("0.0", "1.0"), 1, 0)


def test_declared_labels_hold_on() -> None:
    card, _ = read([{"text": "a", "label": 1}], [{"text": "b", "label": 0}], labels=["no", "yes"])
    assert card.declared
    _, task = read([{"text": "c", "label": 1}], [{"text": "d", "label": 1}], card)
    assert (task.labels, task.train[0]["label"]) == (("no", "yes"), 1)


def test_tags_are_renumbered() -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}, {"tokens": ["c"], "tags": ["B-Y"]}]
    card, _ = read(rows, [{"tokens": ["d"], "tags": ["O"]}])
    _, task = read(
        [{"tokens": ["e", "f", "h"], "tags": ["B-Y", -100, "O"]}], [{"tokens": ["g"], "tags": ["B-Y"]}], card
    )
    assert task.train[0]["tags"] == [1, -100, 2]


def test_what_does_not_fit_a_known_task_is_refused() -> None:
    card, _ = read()
    with pytest.raises(StreamError, match=r"has labels that it had not before\. Got \['maybe'\]"):
        read([{"text": "x", "label": "maybe"}], [{"text": "y", "label": "no"}], card)
    with pytest.raises(ConfigError, match="metrics: differs"):
        read(known=card, metrics=["f1"])
    with pytest.raises(ConfigError, match="kind: differs"):
        read(known=card, kind="text")
    with pytest.raises(StreamError, match="'label' is missing"):
        read([{"text": "plain text"}], [{"text": "more plain text"}], card)
    with pytest.raises(ConfigError, match=r"task options\.colums: is unknown.*columns"):
        read(colums={})


def text_task(name: str, train: str = "", evaluation: str = "", **more: bool) -> Task:
    return Task(name, "text", [{"text": t} for t in train], [{"text": t} for t in evaluation], **more)


def test_training_rows_that_are_evaluation_items_are_counted() -> None:
    stored = [text_task("other", "", "ab"), text_task("third", "", "c"), text_task("t", "", "d")]
    assert check_apart(text_task("t", "efg", "dh"), stored) == []
    with pytest.raises(StreamError, match=r"Got \{'other': 2, 'third': 1, 't': 1\}.*or set allow_overlap: true"):
        check_apart(text_task("t", "abcd", "h"), stored)
    (told,) = check_apart(text_task("t", "ae", "h", allow_overlap=True), stored)
    assert told == "task 't': rows of it that are evaluation items of 'other': 1 (allow_overlap is set)."
    assert "in case, white space or Unicode form alone: 1" in check_apart(text_task("t", "A"), stored)[0]


def test_evaluation_items_that_were_trained_on_are_counted() -> None:
    trained = {1: {trained_key({"text": "one"})}, 3: set()}
    items = [{"text": "two"}, {"text": "one\n"}]
    assert check_not_trained(text_task("t"), [{"text": "two"}, {"text": "ONE"}], trained) == []
    with pytest.raises(StreamError, match=r"were trained on before, by version\. Got \{1: 1\}.*allow_overlap: true"):
        check_not_trained(text_task("t"), items, trained)
    assert "by version: {1: 1}" in check_not_trained(text_task("t", allow_overlap=True), items, trained)[0]


def test_what_older_versions_kept_of_their_rows_still_counts() -> None:
    trained = {1: {loose_digest_of({"text": "One"}).hex()}}
    with pytest.raises(StreamError, match=r"were trained on before, by version\. Got \{1: 1\}"):
        check_not_trained(text_task("t"), [{"text": "one"}, {"text": "two"}], trained)


@pytest.mark.parametrize("name", ["", ".x", "a/b", "..", "a\n", "_a", "x" * 101, "a "])
def test_names_that_can_name_no_folder_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="the name can't be used"):
        check_name(name)


def test_names_may_have_letters_of_any_script() -> None:
    check_name("Rechnungen für Ödön 2.1")
    assert TaskCard("a", "text").task([], [{"text": "x"}]).validation is None

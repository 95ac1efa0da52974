"""Tasks: what they are stays so, and training rows stay apart from evaluation items."""

import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.home.reading import check_apart, check_name, check_not_trained, read_new
from everlearn.home.tasks import TaskCard
from everlearn.streams.checking import digest_of

TRAIN = [{"text": f"t {i}", "label": ("no", "yes")[i % 2]} for i in range(8)]
EVAL = [{"text": f"e {i}", "label": ("no", "yes")[i % 2]} for i in range(4)]


def read(train=TRAIN, evaluation=EVAL, known=None, **options):
    return read_new("t", train, evaluation, None, options, known)


def test_first_reading_makes_a_card() -> None:
    card, task = read(metrics=["f1"])
    assert (card.kind, card.labels, card.metrics, card.declared) == ("classify", ("no", "yes"), ("f1",), False)
    assert (len(task.train), len(task.evaluation)) == (8, 4)


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


def test_declared_labels_hold_on() -> None:
    card, _ = read([{"text": "a", "label": 1}], [{"text": "b", "label": 0}], labels=["no", "yes"])
    assert card.declared
    _, task = read([{"text": "c", "label": 1}], [{"text": "d", "label": 1}], card)
    assert (task.labels, task.train[0]["label"]) == (("no", "yes"), 1)


def test_tags_are_renumbered() -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["O", "X"]}, {"tokens": ["c"], "tags": ["Y"]}]
    card, _ = read(rows, [{"tokens": ["d"], "tags": ["O"]}])
    _, task = read([{"tokens": ["e", "f"], "tags": ["Y", "O"]}], [{"tokens": ["g"], "tags": ["Y"]}], card)
    assert task.train[0]["tags"] == [2, 0]


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


def test_training_rows_that_are_evaluation_items_are_counted() -> None:
    rows = [{"text": "One"}, {"text": "two"}, {"text": "three"}]
    check_apart("t", rows, {"other": [{"text": "four"}]})
    with pytest.raises(StreamError, match=r"Got \{'other': 2, 'third': 1\}"):
        check_apart("t", rows, {"other": [{"text": "one"}, {"text": "TWO "}], "third": [{"text": "three"}]})


def test_evaluation_items_that_were_trained_on_are_counted() -> None:
    trained = {1: {digest_of({"text": "one"}).hex()}, 3: set()}
    check_not_trained("t", [{"text": "two"}], trained)
    with pytest.raises(StreamError, match=r"were trained on before, by version\. Got \{1: 1\}"):
        check_not_trained("t", [{"text": "two"}, {"text": "ONE"}], trained)


@pytest.mark.parametrize("name", ["", ".x", "a/b", "..", "a\n", "_a", "x" * 101, "a "])
def test_names_that_can_name_no_folder_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="the name can't be used"):
        check_name(name)


def test_names_may_have_letters_of_any_script() -> None:
    check_name("Rechnungen für Ödön 2.1")
    assert TaskCard("a", "text").task([], [{"text": "x"}]).validation is None

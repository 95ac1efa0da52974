"""Answers that come later: joined by id, given up where too many wait, kept in the state."""

import pytest

from everlearn.errors import ConfigError
from everlearn.streams.delayed import Joining, is_question, kind_of_row
from everlearn.streams.labels import BadRow
from everlearn.types import IGNORED


def test_a_question_waits_until_its_answer_comes():
    joining = Joining("classify")
    whole = joining.take({"text": "a", "label": "x"})
    assert whole == {"text": "a", "text_pair": None, "label": 0}
    question = joining.take({"id": 7, "text": "b", "text_pair": "c", "type": "t", "other": 1})
    assert question == {"id": "7", "text": "b", "text_pair": "c", "type": "t"}
    assert is_question(question)
    assert not is_question(whole)
    joining.answered(question, "x")
    joined = joining.take({"id": "7", "label": "y"})
    assert joined == {"id": "7", "text": "b", "text_pair": "c", "type": "t", "label": 1, "answered": "x"}
    assert joining.labels == ("x", "y")
    assert not joining.waiting


def test_an_answer_to_nothing_is_left_out_and_counted():
    joining = Joining("classify")
    assert joining.take({"id": 1, "label": "x"}) is None
    assert (joining.n_unmatched, joining.labels) == (1, ())


def test_the_oldest_question_is_given_up_for_a_new_one():
    joining = Joining("prompt", max_waiting=2)
    for number in range(3):
        joining.take({"id": number, "prompt": f"{number}+1="})
    assert (list(joining.waiting), joining.n_given_up) == (["1", "2"], 1)
    assert joining.take({"id": 0, "completion": "1"}) is None
    assert joining.take({"id": 2, "completion": "3"})["completion"] == "3"


def test_tags_must_be_as_many_as_the_question_has_tokens():
    joining = Joining("tag")
    joining.take({"id": 1, "tokens": ["a", "b"]})
    with pytest.raises(BadRow, match="tokens and tags differ in length: 2 and 1"):
        joining.take({"id": 1, "tags": ["O"]})
    assert joining.take({"id": 1, "tags": ["O", -100]})["tags"] == [0, IGNORED]  # it still waited


def test_it_goes_on_from_its_state():
    joining = Joining("classify")
    joining.take({"text": "a", "label": "x"})
    joining.answered(joining.take({"id": 1, "text": "b"}), "x")
    joining.take({"id": 9, "label": "z"})
    other = Joining("classify")
    other.load_state(joining.state())
    assert other.state() == joining.state()
    assert other.take({"id": 1, "label": "y"})["answered"] == "x"
    assert other.labels == ("x", "y")


def test_labels_that_look_like_numbers_keep_their_names_over_a_resume():
    joining = Joining("classify")
    for label in (3, 1):
        joining.take({"text": "a", "label": label})
    other = Joining("classify")
    other.load_state(joining.state())
    assert other.take({"text": "a", "label": 1})["label"] == 1
    assert other.labels == ("3", "1")


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("classify", {"text": "a"}, "column 'label' is missing, and without an 'id'"),
        ("classify", {"label": "a"}, "column 'text' is missing"),
        ("classify", {"id": True, "text": "a"}, "without an 'id'"),
        ("classify", {"id": 1.5, "text": "a"}, "without an 'id'"),
        ("classify", {"id": 1, "text": " "}, "text is empty"),
        ("tag", {"id": 1, "tokens": "a b"}, "tokens is str, not a list"),
    ],
)
def test_a_row_that_can_not_be_used_is_told(kind, row, message):
    with pytest.raises(BadRow, match=message):
        Joining(kind).take(row)


def test_the_kind_is_told_by_what_a_row_asks_or_answers():
    rows = ({"prompt": "a"}, {"text": "a"}, {"tokens": ["a"]}, {"id": 1, "tags": ["O"]}, {"id": 1, "x": 2})
    assert [kind_of_row(row) for row in rows] == ["prompt", "classify", "tag", "tag", None]


def test_settings_that_can_not_be_are_refused():
    with pytest.raises(ConfigError, match=r"source\.max_waiting"):
        Joining("classify", max_waiting=0)
    with pytest.raises(ConfigError, match=r"source\.labels: rows of kind prompt have none"):
        Joining("prompt", ["a"])

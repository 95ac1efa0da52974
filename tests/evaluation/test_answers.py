"""Questions and answers as texts for people."""

import pytest

from everlearn.evaluation.answers import (
    KEPT_CHARACTERS,
    flips_of,
    kept_text,
    question_of,
    readable,
    right_answer,
    told,
    without_answers,
)
from everlearn.types import Score
from support.tasks import classify_task, prompt_task, tag_task, text_task


def score(outcomes, answers=()):
    return Score("a", "exact_match", 0.5, None, None, len(outcomes), outcomes, answers=answers)


def test_what_rows_ask_and_what_is_right():
    turns = [{"role": "user", "content": [{"type": "text", "text": "2+2?"}]}, {"role": "assistant", "content": " 4"}]
    pair = {"text": "a", "text_pair": "b", "label": 1}
    tagged = {"tokens": ["Ann", "is", "in"], "tags": [1, 0, -100]}
    prompt = {"prompt": "1+1=", "completion": " 2"}
    cases = [
        (prompt_task(0), {"messages": turns}, "user: 2+2?", "4"),
        (prompt_task(0), prompt, "1+1=", "2"),
        (classify_task(0), pair, "a\nb", "dog_0"),
        (tag_task(0), tagged, "Ann is in", "B-PER O"),
        (text_task(0), {"text": "some text"}, "some text", ""),
    ]
    for task, row, asked, right in cases:
        assert (question_of(row), right_answer(task, row)) == (asked, right)


def test_long_answers_keep_their_begin_and_end():
    long = "a" * 10_000 + "\nAnswer: 7"
    kept = kept_text(long)
    assert len(kept) == KEPT_CHARACTERS
    assert (kept[:3], kept[-11:]) == ("aaa", "a\nAnswer: 7")
    assert kept_text("short ") == "short "
    assert kept_text("half \ud800 of a pair").encode() == b"half ? of a pair"


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("a\n\t b\x0bc\u2028d", 7, "a b c d"),
        ("\x1b[2J\x07", 20, r"\x1b[2J\x07"),
        ("abc\u202efdp.exe\u2069\u200f", 50, r"abc\u202efdp.exe\u2069\u200f"),
        ("שלום می\u200cخواهم", 20, "שלום می\u200cخواهم"),
        ("\ud800\U000e0041", 20, r"\ud800\U000e0041"),
        ("x" * 5_000_000, 21, "x" * 14 + "…" + "x" * 6),
        ("\x00" * 100, 21, r"\x00\x00\x00\x…00\x00"),
    ],
)
def test_hostile_texts_become_plain_ones(text, limit, shown):
    assert readable(text, limit) == shown


def test_an_answer_is_told_with_how_right_it_is():
    assert told("cat", 1.0, 20) == "cat\nright"
    assert told("", 0.0, 20) == "(nothing)\nwrong"
    assert told(None, 0.625, 20) == "–\n0.625"


def test_flips_are_the_items_that_differ():
    asked = [(f"q{i}", f"r{i}", None) for i in range(4)]
    before, after = score((1.0, 0.0, 1.0, 0.5), ("a", "b", "c", "d")), score((1.0, 1.0, 0.0, 0.5), ("e", "f", "g", "h"))
    gained, lost = flips_of(asked, before, after)
    assert (gained.question, gained.right, gained.answer_before, gained.answer_after, gained.lost) == (
        "q1", "r1", "b", "f", False,
    )  # fmt: skip
    assert (lost.question, lost.answer_before, lost.answer_after, lost.lost) == ("q2", "c", "g", True)
    old = flips_of(asked, score(before.outcomes), after)
    assert [(flip.answer_before, flip.answer_after) for flip in old] == [(None, "f"), (None, "g")]


def test_scores_without_answers_are_as_they_were_before_answers_were_kept():
    assert set(without_answers(score((1.0,), ("a",)))) == {
        "task", "metric", "value", "low", "high", "n", "outcomes", "metrics",
    }  # fmt: skip

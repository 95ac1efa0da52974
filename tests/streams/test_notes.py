import pytest

from everlearn.streams.loading import TaskOptions, build_task


def _notes(train, evaluation=None, **options):
    return build_task("t", train, evaluation, None, TaskOptions(**options)).notes


def _ask(prompt, completion="b"):
    return {"prompt": prompt, "completion": completion}


def test_rows_that_nearly_are_evaluation_items_are_told():
    (note,) = _notes([_ask("x"), _ask("If a:")], [_ask("if  a:"), _ask("y")])
    assert note == (
        "task 't': evaluation rows that differ from a row of train in case, white space or Unicode form alone: "
        "1 of 2, the first is evaluation row 1 and train row 2."
    )


@pytest.mark.parametrize(
    ("train", "evaluation", "told"),
    [
        (
            [_ask("a"), _ask("a", "c"), _ask("a", "c")],
            [_ask("z")],
            "prompts of train with two answers or more: 1, the first at",
        ),
        ([_ask("z")], [_ask("a"), _ask("b"), _ask("a", "c")], "prompts of evaluation with two answers or more: 1"),
        ([_ask("z"), _ask("a")], [_ask("a", "c")], "prompts of evaluation with another answer in train: 1"),
    ],
)
def test_prompts_with_two_answers_are_told(train, evaluation, told):
    (note,) = _notes(train, evaluation, allow_overlap=True)
    assert told in note


def test_equal_rows_are_no_two_answers():
    assert _notes([_ask("a"), _ask("a", " b\n")], [_ask("a")], allow_overlap=True) == ()
    assert _notes([{"text": "a"}, {"text": "a"}], [{"text": "b"}]) == ()


def test_a_text_with_two_labels_is_told():
    rows = [{"text": "a", "label": "x"}, {"text": "a", "label": "y"}]
    (note,) = _notes(rows, [{"text": "b", "label": "x"}])
    assert note == "task 't': texts of train with two answers or more: 1, the first at train row 1 and train row 2."


def test_labels_that_are_in_evaluation_only_are_told():
    rows = [{"text": text, "label": label} for text, label in ("ax", "bx", "cy", "dz", "ez")]
    (note,) = _notes(rows[:2], rows[2:])
    assert note == (
        "task 't': labels in evaluation that no training row has, so that they can't be right unless learned before: "
        "'y' (1), 'z' (2)."
    )
    tags = [{"tokens": [word], "tags": [tag]} for word, tag in (("a", "O"), ("b", "B-X"))]
    assert _notes(tags[:1], tags[1:]) == (note.replace("'y' (1), 'z' (2)", "'B-X' (1)"),)

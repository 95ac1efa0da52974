import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.streams.loading import TaskOptions, build_task
from everlearn.streams.metrics import fitting_metrics


def _fit(kind, labels=(), metrics=(), evaluation=(), declared=False):
    return fitting_metrics("task 't'", kind, labels, tuple(metrics), evaluation, declared=declared)


@pytest.mark.parametrize("labels", [("O", "B-PER", "I-PER"), ("B", "I", "O"), ("S-X", "E-X", "B-X", "I-X", "O")])
def test_tags_of_entities_keep_the_metric_of_their_kind(labels):
    assert _fit("tag", labels) == ((), [])
    assert _fit("tag", labels, ["entity_f1"]) == (("entity_f1",), [])


@pytest.mark.parametrize("labels", [("NOUN", "VERB"), ("0", "1", "2"), ("O", "U-PER", "L-PER")])
def test_other_tags_are_measured_by_accuracy_and_it_is_told(labels):
    metrics, (note,) = _fit("tag", labels)
    assert metrics == ("accuracy",)
    assert f"tags such as {labels[1] if labels[0] == 'O' else labels[0]}" in note
    assert _fit("tag", labels, ["accuracy"]) == (("accuracy",), [])
    with pytest.raises(ConfigError, match="metrics: entity_f1 can't read tags such as"):
        _fit("tag", labels, ["accuracy", "entity_f1"])


def test_the_metric_of_a_task_is_replaced_when_its_rows_are_read():
    rows = [{"tokens": ["a", word], "tags": ["NOUN", "VERB"]} for word in "bc"]
    task = build_task("t", rows[:1], rows[1:], None, TaskOptions())
    assert task.metrics == ("accuracy",)
    assert task.notes == (
        "task 't': tags such as NOUN, VERB name no entities (O, B-NAME, I-NAME), so accuracy is measured.",
    )


def test_a_choice_needs_choices():
    rows = [{"choices": ["a"]}, {"choices": None}, {}]
    assert _fit("prompt", (), ["choice"], rows[:1]) == (("choice",), [])
    with pytest.raises(StreamError, match=r"rows have no choices\. Got '2 of 3 rows, the first is evaluation row 2'"):
        _fit("prompt", (), ["choice"], rows)


def test_the_label_that_f1_is_of_is_told_unless_the_order_was_given():
    assert "f1 is that of the label 'real'" in _fit("classify", ("fake", "real"), ["f1"])[1][0]
    assert _fit("classify", ("fake", "real"), ["f1"], declared=True)[1] == []
    assert _fit("classify", ("a", "b", "c"), ["f1"])[1] == []

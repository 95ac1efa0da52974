"""Which rows are looked at, what of them, and what an encoder predicts that has no head for them."""

import math

import pytest

from everlearn.errors import ConfigError
from everlearn.experts.signals import Signals
from everlearn.experts.signals.passes import chosen, passes
from everlearn.models.load import ModelConfig, load_model
from everlearn.models.without import base_of
from everlearn.types import Task
from support.experts import context_of
from support.tasks import classify_task, prompt_task, tag_task


def test_of_a_long_row_the_end_counts(llama):
    model = load_model(ModelConfig(str(llama)), [prompt_task(0)])
    rows = [{"prompt": "x" * 40 + "1+1=", "completion": "2"}]
    short = [{"prompt": "1+1=", "completion": "2"}]
    long, cut = (Task("t", "prompt", each, []) for each in (rows, short))
    features = model.objective.take(model.objective.encode(short, cut), [0])[0]["input_ids"]
    n = len(features) - len(model.objective.prefix)
    with base_of(model):
        (one,) = passes(model, long, rows, n)
    assert one.tokens == [list(features[-n:])]


def test_classes_are_predicted_by_their_means(bert):
    task = classify_task(1)
    model = load_model(ModelConfig(str(bert)), [task])
    found = context_of(model, task)
    assert 0 < found["entropy_mean"] < math.log(3)
    assert 0 < found["log_perplexity"] < math.log(3)
    assert found["log_targets"] == 0  # one answer a row
    renamed = [{**row, "label": (row["label"] + 1) % 3} for row in task.train]
    again = context_of(model, Task("other names", "classify", renamed, [], labels=task.labels))
    assert again == pytest.approx(found, rel=1e-5)


def test_words_without_a_tag_are_no_targets(bert):
    task = tag_task(0)
    model = load_model(ModelConfig(str(bert)), [task])
    hidden = [{**row, "tags": [tag or -100 for tag in row["tags"]]} for row in task.train]
    found = context_of(model, Task("hidden", "tag", hidden, [], labels=task.labels))
    assert found["log_targets"] == 0  # the one name of each row
    words = sum(len(row["tags"]) for row in task.train) / 12
    assert context_of(model, task)["log_targets"] == pytest.approx(math.log(words), rel=1e-5)


def test_rows_are_taken_of_each_class_alike():
    rows = [{"text": str(n), "label": int(n >= 90)} for n in range(100)]
    task = Task("rare", "classify", rows, [], labels=("a", "b"))
    picked = chosen(task, rows, 8, seed=0)
    assert [row["label"] for row in picked].count(1) == 4
    assert picked == chosen(task, rows, 8, seed=0)
    assert picked != chosen(task, rows, 8, seed=1)
    assert len({row["text"] for row in chosen(task, rows, 1000, seed=0)}) == 100


def test_rows_of_one_label_are_refused(bert):
    task = classify_task(0)
    model = load_model(ModelConfig(str(bert)), [task])
    with pytest.raises(ConfigError, match="no gradient reaches a layer"):
        Signals(model).of("cats", task, [row for row in task.train if row["label"] == 0])

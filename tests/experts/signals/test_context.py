"""The context signal in closed form: a base that knows nothing, and classes that are told apart by their means."""

import math

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.experts.signals.context import FEATURES, SPREAD, TYPICAL, Context
from everlearn.experts.signals.passes import Pass, chosen, passes
from everlearn.learners.teacher import base_of
from everlearn.models.load import ModelConfig, load_model
from everlearn.types import Task
from support.tasks import classify_task, prompt_task, tag_task


def signal_of(model, task, max_tokens: int = 64) -> dict[str, float]:
    context = Context()
    with base_of(model):
        for one in passes(model, task, list(task.train), max_tokens):
            context.add(one)
    return dict(zip(FEATURES, context.signal().tolist(), strict=True))


def test_each_number_means_what_its_name_says():
    context = Context()
    entropies = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    context.add(Pass(torch.tensor([1.0, 3.0]), entropies[:2], [[5, 6, 5], [5]], torch.tensor([1, 3])))
    context.add(Pass(torch.tensor([5.0]), entropies[2:], [[7, 7, 7, 7]], torch.tensor([5])))
    wanted = [2, math.sqrt(2), 0.4, 2, 3.6, math.log(8 / 3), math.log(3), 3, 3 / 8]
    assert context.signal().tolist() == pytest.approx(wanted)
    assert len(FEATURES) == len(TYPICAL) == len(SPREAD) == len(wanted)


def test_a_base_that_knows_nothing_has_the_entropy_of_its_vocabulary(llama):
    task = prompt_task(0)
    model = load_model(ModelConfig(str(llama)), [task])
    with torch.no_grad():
        model.network.get_output_embeddings().weight.zero_()
    found = signal_of(model, task)
    log_n = math.log(model.network.config.vocab_size)
    for name in ("entropy_mean", "entropy_q10", "entropy_q90", "log_perplexity"):
        assert found[name] == pytest.approx(log_n, rel=1e-5)
    assert found["entropy_deviation"] == pytest.approx(0, abs=1e-4)
    features = [model.objective.take(model.objective.encode(task.train, task), [i])[0] for i in range(len(task.train))]
    tokens = [token for one in features for token in one["input_ids"]]
    targets = sum(label != -100 for one in features for label in one["labels"])
    assert found["log_tokens"] == pytest.approx(math.log(len(tokens) / 12), rel=1e-5)
    assert found["log_targets"] == pytest.approx(math.log(targets / 12), rel=1e-5)
    assert found["type_token_ratio"] == pytest.approx(len(set(tokens)) / len(tokens), rel=1e-5)


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
    found = signal_of(model, task)
    assert 0 < found["entropy_mean"] < math.log(3)
    assert 0 < found["log_perplexity"] < math.log(3)
    assert found["log_targets"] == 0  # one answer a row
    renamed = [{**row, "label": (row["label"] + 1) % 3} for row in task.train]
    again = signal_of(model, Task("other names", "classify", renamed, [], labels=task.labels))
    assert again == pytest.approx(found, rel=1e-5)


def test_words_without_a_tag_are_no_targets(bert):
    task = tag_task(0)
    model = load_model(ModelConfig(str(bert)), [task])
    hidden = [{**row, "tags": [tag or -100 for tag in row["tags"]]} for row in task.train]
    found = signal_of(model, Task("hidden", "tag", hidden, [], labels=task.labels))
    assert found["log_targets"] == 0  # the one name of each row
    words = sum(len(row["tags"]) for row in task.train) / 12
    assert signal_of(model, task)["log_targets"] == pytest.approx(math.log(words), rel=1e-5)


def test_rows_are_taken_of_each_class_alike():
    rows = [{"text": str(n), "label": int(n >= 90)} for n in range(100)]
    task = Task("rare", "classify", rows, [], labels=("a", "b"))
    picked = chosen(task, rows, 8, seed=0)
    assert [row["label"] for row in picked].count(1) == 4
    assert picked == chosen(task, rows, 8, seed=0)
    assert picked != chosen(task, rows, 8, seed=1)
    assert len({row["text"] for row in chosen(task, rows, 1000, seed=0)}) == 100


def test_rows_of_one_label_are_refused(bert):
    from everlearn.experts.signals import Signals

    task = classify_task(0)
    model = load_model(ModelConfig(str(bert)), [task])
    with pytest.raises(ConfigError, match="no gradient reaches a layer"):
        Signals(model).of("cats", task, [row for row in task.train if row["label"] == 0])

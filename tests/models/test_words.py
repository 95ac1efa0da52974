"""Classification by a language model that writes one of the labels."""

import json
from dataclasses import replace

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.learners.loader import row_batches
from everlearn.models.load import ModelConfig, load_model, network_kind
from everlearn.models.words import in_words
from everlearn.report.compare import paired_comparisons
from everlearn.report.views import load_views
from everlearn.runs import run
from support.models import byte_tokenizer
from support.runs import make_bench
from support.tasks import classify_task, prompt_task, tag_task


@pytest.fixture
def bench(llama, bert):
    return make_bench("words", llama, bert)


def test_a_row_asks_for_one_of_the_labels(bench):
    task = bench.tasks[0]
    objective = load_model(bench.config, bench.tasks).objective
    for row, feature in zip(task.train, objective.encode(task.train, task), strict=True):
        learned = [token for token in feature["labels"] if token != -100]
        assert byte_tokenizer().decode(learned, skip_special_tokens=True) == f" {task.labels[row['label']]}"
    pair = in_words({"text": "one", "text_pair": "two"}, ("no", "yes"), 1)
    assert pair == {"prompt": "one\ntwo\nOne of: no, yes.\nAnswer:", "completion": " yes"}


def test_the_likeliest_of_the_labels_is_the_answer_and_no_other_text_can_be(bench):
    task, learned = bench.tasks[0], bench.run()
    score = learned.score(replace(task, metrics=("accuracy", "f1")))
    assert set(score.answers) <= set(task.labels)
    assert {"accuracy", "f1", "matthews"} <= set(score.metrics)
    objective = learned.model.objective
    for row, answer in zip(task.evaluation, score.answers, strict=True):
        sums = []
        for label in range(len(task.labels)):
            ((_, batch),) = row_batches(objective, [{**row, "label": label}], task, 1)
            with torch.no_grad(), learned.model.evaluating():
                outputs = objective.forward(learned.model.network, batch)
            log_p = outputs.logits.log_softmax(-1).gather(1, outputs.targets[:, None])
            sums.append(log_p.sum().item())
        assert answer == task.labels[sums.index(max(sums))]


def test_it_learns(bench):
    learned = bench.learn(bench.run(["replay"], epochs=12), upto=1)
    assert learned.score(bench.tasks[0]).value == 1.0


def test_what_label_words_are_not_for_is_refused(llama):
    assert network_kind([classify_task(0), prompt_task(0)], "words") == "causal"
    with pytest.raises(ConfigError, match=r"model.head: label words are for rows with one label. Got .*'tag'"):
        load_model(ModelConfig(str(llama), head="words"), [tag_task(0)])
    with pytest.raises(ConfigError, match=r"its tasks need different kinds of model"):
        network_kind([classify_task(0), prompt_task(0)])


@pytest.mark.filterwarnings("ignore:task .* longer than 64 tokens")
def test_the_same_stream_with_heads_and_with_words_stands_in_one_comparison(llama, bert, tmp_path):
    entries = []
    for number in range(2):
        task = classify_task(number)
        paths = {"train": tmp_path / f"{number}.jsonl", "eval": tmp_path / f"{number}.eval.jsonl"}
        for path, rows in zip(paths.values(), (task.train, task.evaluation), strict=True):
            named = [{**row, "label": task.labels[row["label"]]} for row in rows]
            path.write_text("".join(json.dumps(row) + "\n" for row in named))
        entries.append({"name": task.name, **{role: str(path) for role, path in paths.items()}})
    folders = {}
    for name, model in {"heads": {"name": str(bert)}, "words": {"name": str(llama), "head": "words"}}.items():
        recipe = {
            "stream": {"name": "files", "tasks": entries},
            "model": {**model, "adapter": {"rank": 2}},
            "learner": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01, "early_stopping": False},
            "device": "cpu",
        }
        folders[name] = tmp_path / name
        assert run(recipe, folders[name])["complete"]
    compared = paired_comparisons(load_views(folders))
    assert [(row.first, row.second, row.task, row.over) for row in compared] == [
        ("heads", "words", None, "8 items"),
        ("heads", "words", "classify_0", "4 items"),
        ("heads", "words", "classify_1", "4 items"),
    ]

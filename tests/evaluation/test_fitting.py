from dataclasses import replace

import pytest

from everlearn.evaluation.fitting import fit_of
from everlearn.models.causal import CausalObjective
from everlearn.models.load import ModelConfig, load_model
from everlearn.models.objectives import IGNORED
from everlearn.types import Task
from support.chat import chat_tokenizer, turns
from support.runs import make_bench
from support.tasks import classify_task, prompt_task, tensor_task

LONG = "".join(f"sentence number {i} of a long text. " for i in range(40))


@pytest.fixture
def causal(llama):
    return load_model(ModelConfig(str(llama)), [prompt_task(0)])


def test_what_fits_is_counted_and_not_told(causal):
    fit = fit_of(causal, replace(prompt_task(0), validation=prompt_task(0).train[:2]))
    assert fit.counts["train"] == {"n": 12, "n_cut": 0, "n_answers_cut": 0}
    assert fit.counts["validation"] == {"n": 2, "n_cut": 0, "n_answers_cut": 0}
    assert fit.counts["evaluation"] == {
        "n": 4, "n_cut": 0, "n_answers_cut": 0, "n_questions_cut": 0, "n_out_of_reach": 0,
    }  # fmt: skip
    assert fit.sentences == ()


def test_cut_prompts_and_answers_are_told(causal):
    rows = [
        {"prompt": "q" * 80, "completion": "a"},
        {"prompt": "q", "completion": "a" * 80},
        {"prompt": "q", "completion": "a"},
    ]
    fit = fit_of(causal, Task("t", "prompt", rows, []))
    assert fit.counts == {"train": {"n": 3, "n_cut": 2, "n_answers_cut": 1}}
    assert fit.sentences == (
        "task 't': 2 of 3 training rows are longer than 64 tokens and lose the start of their prompt, 1 of them the "
        "end of their answer as well (model.max_length).",
    )


def test_answers_out_of_reach_are_told_before_anything_is_trained(causal):
    rows = [{"prompt": "q", "completion": "a" * 10}, {"prompt": "q", "completion": "a"}]
    task = Task("t", "prompt", [], rows, max_new_tokens=9)
    (sentence,) = fit_of(causal, task).sentences
    assert "1 of 2 answers are longer than the 9 tokens" in sentence
    assert "leave task.max_new_tokens out" in sentence
    assert fit_of(causal, replace(task, max_new_tokens=10)).sentences == ()
    assert fit_of(causal, replace(task, max_new_tokens=None)).sentences == ()
    assert fit_of(causal, replace(task, metrics=("token_log_likelihood",))).sentences == ()
    assert causal.objective.answer_room(replace(task, max_new_tokens=None)) == 32
    long = replace(task, max_new_tokens=None, evaluation=[{"prompt": "q", "completion": "a" * 39}])
    assert causal.objective.answer_room(long) == 50


@pytest.mark.parametrize("accepts", [True, False])
def test_a_verifier_that_accepts_nothing_is_told(accepts, causal, monkeypatch):
    monkeypatch.setattr("everlearn.evaluation.score.find", lambda *names: lambda answer, row: accepts)
    fit = fit_of(causal, Task("t", "prompt", [], [{"prompt": "q", "completion": "a"}], verifier="own"))
    wanted = () if accepts else ("task 't': the verifier 'own' accepts none of 1 right answers, so that no answer may",)
    assert tuple(sentence.partition(" ever")[0] for sentence in fit.sentences) == wanted


def test_prompts_that_become_turns_are_told(causal):
    causal.objective.wraps = True
    causal.objective.format = CausalObjective(chat_tokenizer("chatml"), 64).format
    (sentence,) = fit_of(causal, Task("t", "prompt", [{"prompt": "q", "completion": "a"}], [])).sentences
    assert "put as turns of the model's chat template (model.chat: never" in sentence
    rows = [{"messages": turns("q", "a")}]
    assert fit_of(causal, Task("t", "prompt", rows, [])).sentences == ()


def test_long_text_falls_into_examples_that_together_hold_everything(causal):
    objective, task = causal.objective, Task("t", "text", [{"text": LONG}, {"text": "short"}], [{"text": LONG}])
    whole = objective.tokenizer(LONG)["input_ids"] + [objective.tokenizer.eos_token_id]
    features = objective.encode(task.train, task)
    assert all(len(feature["input_ids"]) <= 64 for feature in features)
    of_long = [feature for feature in features if feature["row"] == 0]
    assert [i for feature in of_long for i in feature["labels"][1:]] == whole[1:]  # each token is a target once
    assert IGNORED not in features[0]["labels"]
    examples = objective.in_examples(task)
    assert len(examples.train) == len(features)
    assert list(objective.encode(examples.train, examples)) == [{**f, "row": i} for i, f in enumerate(features)]
    assert "".join(row["text"] for row in examples.train[: len(of_long)]) == LONG
    fit = fit_of(causal, task)
    assert fit.counts["train"] == {"n": 2, "n_cut": 0, "n_examples": len(features)}
    assert fit.sentences == ()


def test_pieces_without_a_beginning_token_take_one_token_over(causal):
    objective = causal.objective
    objective.prefix, objective.max_length = [], 8
    pieces = objective._pieces(list(range(10, 30)))
    assert [target for piece in pieces for target in piece[1:]] == [*range(11, 30), 2]


def test_texts_and_words_beyond_the_context_are_told(llama, bert):
    task = Task("c", "classify", [{"text": "red " * 100, "label": 0}], [], labels=("a", "b"))
    model = load_model(ModelConfig(str(bert)), [task])
    model.adapters.do("labels", task="c", labels=["a", "b"], seed=0)
    fit = fit_of(model, task)
    assert fit.counts["train"] == {"n": 1, "n_cut": 1}
    assert fit.sentences == (
        "task 'c': 1 of 1 training rows are longer than 32 tokens and are cut (model.max_length).",
    )
    bench = make_bench("tag", llama, bert)
    run, tags = bench.run(), bench.tasks[0]
    run.add_labels(tags)
    row = {"tokens": ["is"] * 50, "tags": [0] * 49 + [1]}
    fit = fit_of(run.model, replace(tags, train=[row], evaluation=[row]))
    assert fit.counts["evaluation"] == {"n": 1, "n_cut": 1, "n_words_unread": 20}
    assert any("20 words of evaluation rows are not read and count as missed" in s for s in fit.sentences)
    assert run.score(replace(tags, evaluation=[row])).metrics["accuracy"] <= 0.98


def test_tags_are_counted_before_a_shared_head_has_columns_for_them(bert):
    rows = [{"tokens": ["is"] * 50, "tags": [1] * 49 + [-100]}]
    task = Task("t", "tag", rows, rows, labels=("O", "B-x"))
    fit = fit_of(load_model(ModelConfig(str(bert), head="shared"), [task]), task)
    assert fit.counts["train"] == {"n": 1, "n_cut": 1, "n_words_unread": 19}


def test_plain_modules_take_everything():
    model = load_model(ModelConfig("mlp"), [tensor_task(0)])
    assert fit_of(model, tensor_task(0)).counts["train"] == {"n": 24, "n_cut": 0}
    assert classify_task(0).labels

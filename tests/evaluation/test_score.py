import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score
from tokenizers import normalizers

from everlearn import registry
from everlearn.errors import ConfigError, StreamError, TrainingError
from everlearn.evaluation.generate import generate_greedily
from everlearn.evaluation.score import is_right, metric_names, score_task
from everlearn.evaluation.stats import jackknife_interval, range_of
from everlearn.learners.devices import start_accelerator
from everlearn.models.adapters import language_model
from everlearn.models.causal import CausalObjective
from everlearn.models.load import load_model
from everlearn.types import Task, TensorRows
from support.chat import chat_tokenizer, turns
from support.models import byte_tokenizer
from support.runs import make_bench, weights
from support.tasks import prompt_task, regression_task, tensor_task, text_task


class Answers(torch.nn.Module):
    """A plain module that answers what it is shown: its inputs are its logits."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale


def scored(task, batch_size=3, **changes):
    task = replace(task, **changes)
    model = load_model(Answers(), [task])
    if task.labels:
        model.adapters.do("labels", task=task.name, labels=list(task.labels), seed=0)
    return score_task(model, task, "evaluation", start_accelerator(device="cpu"), batch_size)


def rows(predicted, right, n_classes):
    return TensorRows(torch.nn.functional.one_hot(torch.tensor(predicted), n_classes).float(), torch.tensor(right))


@pytest.fixture
def language(llama, bert):
    return make_bench("causal_lora", llama, bert)


def test_accuracy_f1_and_matthews():
    predicted, right = [0, 1, 1, 2, 2, 0, 1], [0, 1, 2, 2, 0, 0, 1]
    score = scored(tensor_task(0, labelled=False), evaluation=rows(predicted, right, 3))
    assert score.outcomes == (1, 1, 0, 1, 0, 1, 1)
    assert (score.metric, score.value, score.n) == ("accuracy", pytest.approx(5 / 7), 7)
    assert score.metrics["f1"] == pytest.approx(f1_score(right, predicted, average="macro"))
    assert score.low < score.value < score.high


@pytest.mark.parametrize("other_first", [False, True])
@pytest.mark.parametrize("head", ["task", "shared"])
def test_f1_of_two_classes_is_that_of_the_second_wherever_it_stands_in_the_output(head, other_first):
    predicted, right = [0, 1, 1, 1, 0, 1], [0, 1, 0, 1, 1, 1]
    task = replace(tensor_task(0), labels=("no", "yes"))
    shift = 2 if other_first else 0
    shown = torch.nn.functional.one_hot(torch.tensor(predicted) + shift, 4).float()
    task = replace(task, evaluation=TensorRows(shown, torch.tensor(right)))
    model = load_model(Answers(), [task])
    model.adapters.head_mode = head
    if other_first:
        model.adapters.do("labels", task="other", labels=["a", "b"], seed=0)
    model.adapters.do("labels", task=task.name, labels=["no", "yes"], seed=0)
    score = score_task(model, task, "evaluation", start_accelerator(device="cpu"))
    assert score.metrics["f1"] == pytest.approx(f1_score(right, predicted))


def test_answers_outside_the_two_classes_are_wrong_and_no_error():
    shown = torch.nn.functional.one_hot(torch.tensor([3, 1, 0, 2]), 4).float()
    task = replace(tensor_task(0), labels=("no", "yes"), evaluation=TensorRows(shown, torch.tensor([1, 1, 0, 0])))
    model = load_model(Answers(), [task])
    model.adapters.head_mode = "shared"
    model.adapters.do("labels", task=task.name, labels=["no", "yes"], seed=0)
    score = score_task(model, task, "evaluation", start_accelerator(device="cpu"))
    assert score.value == 0.5
    assert score.metrics["f1"] == pytest.approx(2 / 3)


def test_one_class_only_is_no_warning():
    score = scored(tensor_task(0, labelled=False), evaluation=rows([1, 1, 1], [1, 1, 1], 2))
    assert score.value == 1.0
    assert score.metrics["matthews"] == 0.0


def test_negative_mse():
    x = torch.tensor([[1.0], [2.0], [4.0]])
    task = replace(regression_task(0), evaluation=TensorRows(x, x + torch.tensor([[1.0], [0.0], [2.0]])))
    score = scored(task)
    assert (score.metric, score.value) == ("negative_mse", pytest.approx(-5 / 3))
    assert score.outcomes == pytest.approx((-1, 0, -4))
    flat = scored(task, evaluation=TensorRows(x, task.evaluation.y[:, 0]))
    assert flat.outcomes == score.outcomes


@pytest.mark.parametrize("kind", ["causal_lora", "classify", "tag", "plain"])
def test_the_batch_size_changes_nothing(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(epochs=1))
    for task in bench.tasks:
        scores = []
        for size in (1, 3, 64):
            run.eval_batch_size = size
            scores.append(run.score(task))
        assert scores[0].outcomes == scores[1].outcomes == scores[2].outcomes
        assert scores[0].metrics == pytest.approx(scores[2].metrics)


def test_perplexity_is_over_all_tokens(language):
    bench = replace(language, tasks=(text_task(0),))
    model, task = bench.run().model, text_task(0)
    score = score_task(model, task, "evaluation", start_accelerator(device="cpu"), 3)
    total = n_tokens = 0
    for row in task.evaluation:
        ids = torch.tensor([model.objective.encode([row], task)[0]["input_ids"]])
        with torch.no_grad(), model.evaluating():
            log_p = model.network(input_ids=ids).logits[0, :-1].log_softmax(-1)
        total += log_p.gather(1, ids[0, 1:, None]).sum().item()
        n_tokens += ids.shape[1] - 1
    assert score.value == pytest.approx(total / n_tokens, rel=1e-4)
    assert score.metrics["perplexity"] == pytest.approx(math.exp(-total / n_tokens), rel=1e-4)
    assert score.n == len(score.outcomes) == len(task.evaluation)


def test_a_verifier_that_fails_is_one_sentence(monkeypatch):
    monkeypatch.setitem(registry._entries["verifier"], "broken", lambda completion, row: row["gone"] == completion)
    message = (
        r"task .add_1.: verifier: broken fails on an answer \(KeyError: 'gone'\)\. Got 'an answer'\. Mend the function"
    )
    with pytest.raises(TrainingError, match=message):
        is_right(
            replace(prompt_task(1), verifier="broken"),
            "an answer",
            {"prompt": "p"},
            CausalObjective(byte_tokenizer(), 64),
        )


def test_exact_match_strips_white_space_and_a_verifier_replaces_it(language, monkeypatch):
    model, task = language.run().model, prompt_task(0)
    answers = [f" {row['completion']}\n" if i % 2 else "wrong" for i, row in enumerate(task.evaluation)]
    ids = model.objective.prompt_ids([row["prompt"] for row in task.evaluation], task.max_new_tokens)
    by_prompt = {tuple(prompt): answer for prompt, answer in zip(ids, answers, strict=True)}
    monkeypatch.setattr(
        "everlearn.evaluation.score.generate_greedily",
        lambda network, objective, prompts, n, device: [by_prompt[tuple(prompt)] for prompt in prompts],
    )
    score = score_task(model, task, "evaluation", start_accelerator(device="cpu"), 3)
    assert score.outcomes == (0, 1, 0, 1)
    monkeypatch.setitem(registry._entries["verifier"], "is_wrong", lambda completion, row: completion == "wrong")
    verified = score_task(model, replace(task, verifier="is_wrong"), "evaluation", start_accelerator(device="cpu"), 3)
    assert verified.outcomes == (1, 0, 1, 0)


def test_choice_takes_the_likeliest_option_per_token(language):
    model, task = language.run().model, prompt_task(0)
    options = ["7", "abcabc", "x y"]
    rows = [{**row, "choices": options, "completion": options[i % 3]} for i, row in enumerate(task.evaluation)]
    task = replace(task, evaluation=rows, metrics=("choice",))
    score = score_task(model, task, "evaluation", start_accelerator(device="cpu"), 2)
    for row, outcome in zip(rows, score.outcomes, strict=True):
        means = []
        for option in options:
            (feature,) = model.objective.encode([{"prompt": row["prompt"], "completion": option}], task)
            ids = torch.tensor([feature["input_ids"]])
            with torch.no_grad(), model.evaluating():
                log_p = model.network(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            means.append(log_p[torch.tensor(feature["labels"][1:]) != -100].mean().item())
        assert outcome == float(options[means.index(max(means))] == row["completion"])
    with pytest.raises(StreamError, match="row 0: has no choices"):
        score_task(model, replace(prompt_task(0), metrics=("choice",)), "evaluation", start_accelerator(device="cpu"))


def test_choice_takes_conversations_and_turns(language):
    model = language.run().model
    model.objective = CausalObjective(chat_tokenizer("plain"), 512, chat=True)
    row = {"prompt": "1+1?", "completion": "2", "choices": ["1", "2", "3"]}
    said = {"messages": turns("1+1?", "2"), "choices": row["choices"]}
    scores = [
        score_task(
            model, Task("t", "prompt", [], [one], metrics=("choice",)), "evaluation", start_accelerator(device="cpu")
        )
        for one in (row, said)
    ]
    assert scores[0].outcomes == scores[1].outcomes
    assert scores[0].metrics == scores[1].metrics


def test_an_answer_is_compared_with_what_the_tokenizer_gives_back(language, monkeypatch):
    model = language.run().model
    tokenizer = model.objective.tokenizer
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens(["<yes>"], special_tokens=True)
    model.objective = CausalObjective(tokenizer, 64)
    rows = [{"prompt": "a", "completion": " Paris"}, {"prompt": "b", "completion": "<yes>"}]
    assert [model.objective.right_answer(row) for row in rows] == ["paris", "<yes>"]
    task = Task("t", "prompt", [], rows)
    assert all(is_right(task, model.objective.right_answer(row), row, model.objective) for row in rows)
    assert not is_right(task, "london", rows[0], model.objective)


@pytest.mark.parametrize(
    "own", [{"no_repeat_ngram_size": 1}, {"repetition_penalty": 5.0}, {"min_new_tokens": 6}, {"do_sample": True}]
)
def test_the_checkpoint_s_generation_settings_change_no_score(language, own):
    model, task = language.run().model, language.tasks[0]
    prompts = model.objective.questions(task.evaluation, 8)
    arguments = (model.network, model.objective, prompts, 8, torch.device("cpu"))
    with torch.no_grad(), model.evaluating():
        wanted = generate_greedily(*arguments)
        settings = language_model(model.network).generation_config
        settings.update(**own)
        assert generate_greedily(*arguments) == wanted
    assert language_model(model.network).generation_config is settings


def test_generation_stops_at_every_end_that_the_checkpoint_names(language):
    model, task = language.run().model, language.tasks[0]
    prompts = model.objective.questions(task.evaluation, 8)
    with torch.no_grad(), model.evaluating():
        network, device = model.network, torch.device("cpu")
        (answer, *_) = generate_greedily(network, model.objective, prompts, 8, device)
        second = model.tokenizer(answer, add_special_tokens=False)["input_ids"][1]
        model.objective = CausalObjective(model.tokenizer, 64, stop_ids=[second])
        stopped = generate_greedily(network, model.objective, prompts, 8, device)[0]
    assert answer.startswith(stopped)
    assert len(stopped) < len(answer)


def test_macro_f1_is_over_the_task_s_own_classes():
    predicted, right = [0, 1, 2, 0, 4, 2], [0, 1, 2, 0, 1, 2]  # 4 is another task's class
    shown = torch.nn.functional.one_hot(torch.tensor(predicted), 6).float()
    task = replace(tensor_task(0), labels=("a", "b", "c"), evaluation=TensorRows(shown, torch.tensor(right)))
    model = load_model(Answers(), [task])
    model.adapters.head_mode = "shared"
    model.adapters.do("labels", task=task.name, labels=["a", "b", "c"], seed=0)
    model.adapters.do("labels", task="other", labels=["d", "e", "f"], seed=0)
    score = score_task(model, task, "evaluation", start_accelerator(device="cpu"))
    assert score.metrics["f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)


@pytest.mark.parametrize(
    ("kind", "metrics"), [("classify", ("f1", "accuracy", "matthews")), ("tag", ("accuracy", "entity_f1"))]
)
def test_metrics_of_one_pass_are_taken_in_one_pass(kind, metrics, llama, bert, monkeypatch):
    bench = make_bench(kind, llama, bert)
    run, task = bench.run(), replace(bench.tasks[0], metrics=metrics)
    run.add_labels(task)
    seen, forward = [], run.model.objective.forward
    monkeypatch.setattr(run.model.objective, "forward", lambda *args: seen.append(1) or forward(*args))
    score = score_task(run.model, task, "evaluation", run.accelerator, 64)
    assert len(seen) == 1
    assert set(metrics) <= set(score.metrics)


def test_entities_are_found_whole(llama, bert, monkeypatch):
    bench = make_bench("tag", llama, bert)
    run, task = bench.run(), bench.tasks[0]
    run.add_labels(task)
    objective = run.model.objective
    forward = objective.forward

    def all_right_but_the_first_sentence(network, batch, past=()):
        outputs = forward(network, batch, past)
        answers = torch.where((outputs.owners == 0) & (outputs.targets > 0), 0, outputs.targets)
        outputs.logits = torch.nn.functional.one_hot(answers, outputs.logits.shape[1]).float()
        return outputs

    monkeypatch.setattr(objective, "forward", all_right_but_the_first_sentence)
    score = score_task(run.model, task, "evaluation", run.accelerator, 64)
    assert score.outcomes == (0, 1, 1, 1)
    assert score.value == pytest.approx(2 * 1.0 * 0.75 / 1.75)  # precision 3/3, recall 3/4


def test_metrics_must_fit_the_kind():
    assert metric_names(prompt_task(0)) == ("exact_match",)
    assert metric_names(regression_task(0)) == ("negative_mse",)
    with pytest.raises(ConfigError, match=r"a metric doesn't fit. Got 'acuracy'. Did you mean 'accuracy'"):
        metric_names(replace(tensor_task(0), metrics=("acuracy",)))


def test_rows_must_be_there():
    with pytest.raises(StreamError, match="has no evaluation rows"):
        scored(tensor_task(0, labelled=False), evaluation=tensor_task(0).evaluation[:0])
    model = load_model(Answers(), [tensor_task(0)])
    with pytest.raises(StreamError, match="has no validation rows"):
        score_task(model, tensor_task(0), "validation", start_accelerator(device="cpu"))


def test_scoring_changes_nothing(language):
    run = language.run()
    run.model.network.train()
    before, state = weights(run), torch.get_rng_state()
    run.score(language.tasks[0])
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(run).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert run.model.network.training


def test_intervals_of_f1_and_matthews_are_those_of_the_jackknife():
    predicted, right = [0, 1, 1, 2, 2, 0, 1, 2, 0, 0], [0, 1, 2, 2, 0, 0, 1, 2, 1, 0]
    for metric in ("f1", "matthews"):
        score = scored(tensor_task(0, labelled=False), evaluation=rows(predicted, right, 3), metrics=(metric,))
        without = []
        for item in range(len(right)):
            left = [(p, r) for i, (p, r) in enumerate(zip(predicted, right, strict=True)) if i != item]
            part = rows([p for p, _ in left], [r for _, r in left], 3)
            without.append(scored(tensor_task(0, labelled=False), evaluation=part, metrics=(metric,)).value)
        wanted = jackknife_interval(score.value, without, range_of(metric))
        assert (score.low, score.high) == (pytest.approx(wanted.low), pytest.approx(wanted.high))


def test_what_was_answered_is_told_in_words(language, llama, bert, monkeypatch):
    shown = scored(tensor_task(0, labelled=False), evaluation=rows([0, 2], [0, 1], 3))
    assert (shown.answers, shown.outcomes) == (("0", "2"), (1.0, 0.0))
    x = torch.tensor([[1.25], [-2.0]])
    assert scored(replace(regression_task(0), evaluation=TensorRows(x, x))).answers == ("1.25", "-2")
    monkeypatch.setattr("everlearn.evaluation.score.generate_greedily", lambda *args: ["9" * 9999 for _ in args[2]])
    run, task = language.run(), language.tasks[0]
    score = run.score(task)
    assert [len(answer) for answer in score.answers] == [500] * 4
    run.keep_answers = False
    assert run.score(task) == replace(score, answers=())
    run.keep_answers = True
    options = [{**row, "choices": [row["completion"], "no"]} for row in task.evaluation]
    chosen = run.score(replace(task, evaluation=options, metrics=("choice",)))
    for row, answer, right in zip(task.evaluation, chosen.answers, chosen.outcomes, strict=True):
        assert answer == (row["completion"] if right else "no")
    assert run.score(replace(task, metrics=("token_log_likelihood",))).answers == ()


@pytest.mark.parametrize("head", ["task", "shared"])
@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_labels_are_answered_by_their_names(kind, head, llama, bert):
    bench = make_bench(kind, llama, bert, head=head)
    run = bench.learn(bench.run(epochs=1))
    task = bench.tasks[1]
    score = run.score(replace(task, metrics=("accuracy",)))
    for row, answer, right in zip(task.evaluation, score.answers, score.outcomes, strict=True):
        targets = [task.labels[tag] for tag in row["tags"]] if kind == "tag" else [task.labels[row["label"]]]
        hits = [a == b for a, b in zip(answer.split(" "), targets, strict=True)]
        assert sum(hits) / len(hits) == pytest.approx(right)


def test_numbers_are_scored_in_the_user_s_unit(llama, bert):
    bench = make_bench("score", llama, bert)
    task, run = bench.tasks[1], bench.run()
    score = run.score(task)  # its numbers lie around 25, those of an untrained head around their mean
    guessed = [float(answer) for answer in score.answers]
    right = [row["score"] for row in task.evaluation]
    assert guessed == pytest.approx([25.0] * len(right), abs=15)
    errors = [-abs(g - r) for g, r in zip(guessed, right, strict=True)]
    assert score.metrics["negative_mae"] == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert score.metrics["negative_mse"] == pytest.approx(-sum(e * e for e in errors) / len(errors), rel=1e-4)
    assert score.metrics["pearson"] == pytest.approx(pearsonr(right, guessed).statistic, abs=1e-3)
    assert score.metrics["spearman"] == pytest.approx(spearmanr(right, guessed).statistic, abs=1e-6)
    assert (score.metric, score.value, len(score.outcomes)) == ("pearson", score.metrics["pearson"], len(right))
    by_error = run.score(replace(task, metrics=("negative_mae",)))
    assert by_error.outcomes == pytest.approx(errors, abs=1e-4)
    assert by_error.low < by_error.value < by_error.high <= 0

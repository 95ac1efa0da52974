"""Scoring a model on a task's fixed items: one number a metric, one outcome an item."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
import torch.distributed
from accelerate import Accelerator
from seqeval.metrics import f1_score as entity_f1
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import f1_score, matthews_corrcoef

from everlearn.errors import ConfigError, StreamError, TrainingError, describe, nearest
from everlearn.evaluation.answers import kept_text
from everlearn.evaluation.generate import generate_greedily
from everlearn.evaluation.heads import score_numbers, score_preferences, score_sets
from everlearn.evaluation.sharing import Result, Share, mean
from everlearn.evaluation.stats import Interval, jackknife_interval, outcome_interval, range_of, within
from everlearn.models.causal import CausalObjective
from everlearn.models.chat import as_messages
from everlearn.models.load import Model
from everlearn.models.objectives import item_losses
from everlearn.registry import find
from everlearn.types import Row, Rows, Score, Task

METRICS = {
    "prompt": ("exact_match", "choice", "token_log_likelihood", "perplexity"),
    "preference": ("reward_accuracy", "reward_margin"),
    "text": ("token_log_likelihood", "perplexity"),
    "classify": ("accuracy", "f1", "matthews"),
    "multilabel": ("micro_f1", "macro_f1", "accuracy"),
    "score": ("pearson", "spearman", "negative_mae", "negative_mse"),
    "tag": ("entity_f1", "accuracy"),
    "tensor": ("accuracy", "f1", "matthews", "negative_mse"),
}


def score_task(model: Model, task: Task, rows_name: str, accelerator: Accelerator, batch_size: int = 64) -> Score:
    """Score the model on a task's `evaluation` (or `validation`) rows.

    The first of `task.metrics` (or the kind's first) is the score's value: exact_match (greedy completion, by the
    task's verifier where it names one), choice (the option with the highest mean token log-likelihood),
    token_log_likelihood (nats per token; perplexity is exp of its negative and stands beside it), accuracy, f1 (of the
    second class where there are two, else macro), matthews, entity_f1 (seqeval, micro over entities), micro_f1 and
    macro_f1 (of several labels; accuracy: all of them right), pearson, spearman, negative_mae and negative_mse (minus
    the mean absolute or squared error, in the unit of the scores; of plain modules with real targets the latter alone),
    reward_accuracy and reward_margin (of preferences, see `everlearn.models.preferences`).
    Outcomes are right (1) or wrong (0) per item; per item the mean log-likelihood; per sentence its own entity F1; per
    text with several labels its own F1; minus an item's error; a pair's margin; of correlations, which are no mean over
    items, their jackknife's pseudo-values.
    Answers are the text that was generated, the option or label that was chosen, a sentence's tags, or numbers; where
    the likelihood of the right answer is measured, nothing is answered.

    Raises:
        StreamError: if there are no rows. ConfigError: if a metric doesn't fit the task's kind.
    """
    rows: Rows = {"evaluation": task.evaluation, "validation": task.validation}[rows_name]
    if rows is None or len(rows) == 0:
        raise StreamError(describe(f"task {task.name!r}", f"has no {rows_name} rows", rows, "Give it some"))
    names = metric_names(task)
    with torch.no_grad(), model.evaluating(), accelerator.autocast():
        results = _score(model, task, rows, names, accelerator, batch_size)
    metrics = {name: result.value for name, result in results.items()}
    if "token_log_likelihood" in metrics:
        metrics["perplexity"] = math.exp(min(-metrics["token_log_likelihood"], 700.0))
    name = "token_log_likelihood" if names[0] == "perplexity" else names[0]
    first = results[name]
    low, high = _interval(name, first)
    answers = tuple(map(kept_text, first.answers))
    return Score(task.name, name, first.value, low, high, len(rows), tuple(first.outcomes), metrics, answers)


def metric_names(task: Task) -> tuple[str, ...]:
    """Return the metrics to compute for a task, the one that fills the matrix first."""
    known = METRICS[task.kind]
    numbers = task.kind == "tensor" and task.is_regression
    names = tuple(task.metrics) or (("negative_mse",) if numbers else known[:1])
    for name in names:
        if name not in known:
            way_out = f"{nearest(name, known)}Metrics for {task.kind}: {', '.join(known)}"
            raise ConfigError(describe(f"task {task.name!r}: metrics", "a metric doesn't fit", name, way_out))
    return names


def _score(
    model: Model, task: Task, rows: Rows, names: tuple[str, ...], accelerator: Accelerator, batch_size: int
) -> dict[str, Result]:
    share = Share(accelerator, batch_size)
    scorers = {"multilabel": score_sets, "preference": score_preferences, "score": score_numbers, "tag": _tags}
    results: dict[str, Result] = {}
    for name in names:
        if name in results or (name == "perplexity" and "token_log_likelihood" in results):
            continue  # one pass gives all that can be told from it
        if name == "exact_match":
            results[name] = _exact_match(model, task, rows, share)
        elif name == "choice":
            results[name] = _choice(model, task, rows, share)
        elif name in ("token_log_likelihood", "perplexity"):
            results["token_log_likelihood"] = _token_log_likelihood(model, task, rows, share)
        elif task.kind in scorers:
            results |= scorers[task.kind](model, task, rows, share)
        elif name == "negative_mse":
            features = model.objective.encode_answers(rows, task)
            found = share.over_batches(model, features, _errors_and_numbers)
            errors = [error for error, _ in found]
            results[name] = Result(mean(errors), errors, answers=[numbers for _, numbers in found])
        else:
            results |= _labels(model, task, rows, share)
    return results


def _errors_and_numbers(outputs: Any, n_rows: int) -> list[tuple[float, str]]:
    """Return minus the squared error of each prediction, and the prediction in words."""
    numbers = outputs.logits.float().reshape(n_rows, -1).tolist()
    words = [", ".join(f"{number:.6g}" for number in row) for row in numbers]
    return list(zip((-2 * item_losses(outputs)).tolist(), words, strict=True))


def _exact_match(model: Model, task: Task, rows: Rows, share: Share) -> Result:
    room = model.objective.answer_room(task)
    prompts = model.objective.questions(rows, room)
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))  # those of like length share a batch
    answers = share.over(
        [prompts[i] for i in order],
        lambda batch: generate_greedily(model.network, model.objective, batch, room, share.accelerator.device),
    )
    answer_of = dict(zip(order, answers, strict=True))
    outcomes = [float(is_right(task, answer_of[i], row, model.objective)) for i, row in enumerate(rows)]
    return Result(mean(outcomes), outcomes, answers=[answer_of[i] for i in range(len(rows))])


def is_right(task: Task, answer: str, row: Row, objective: CausalObjective) -> bool:
    """Return whether an answer is that of its row: by the task's verifier, or the text that was to come.

    Of an answer in steps, it is what stands behind them that counts.
    That text is what the tokenizer gives back of the completion: it may drop capitals, say, and then no model that
    uses it could ever give the completion itself.

    Raises:
        TrainingError: if the verifier fails.
    """
    answer = objective.final_answer(answer)
    if task.verifier is None:
        return answer.strip() == objective.right_answer(row)
    where = f"task {task.name!r}: verifier"
    verify = find("verifier", task.verifier, where)
    try:
        return bool(verify(answer, row))
    except Exception as error:
        what = f"{task.verifier} fails on an answer ({type(error).__name__}: {' '.join(str(error).split())})"
        raise TrainingError(describe(where, what, answer, "Mend the function; it gets (answer, row)")) from error


def _choice(model: Model, task: Task, rows: Rows, share: Share) -> Result:
    """Right where the option with the highest mean token log-likelihood is the row's completion."""
    options: list[Row] = []
    for i, row in enumerate(rows):
        if "choices" not in row or not row["choices"]:
            way_out = "Add a column choices with the possible completions, or use exact_match"
            raise StreamError(describe(f"task {task.name!r}, row {i}", "has no choices", dict(row), way_out))
        options += [_answered(row, choice) for choice in row["choices"]]
    values = share.over_batches(model, model.objective.encode_answers(options, task), _row_means)
    outcomes, chosen, start = [], [], 0
    for row in rows:
        scores = values[start : start + len(row["choices"])]
        start += len(scores)
        best = row["choices"][max(range(len(scores)), key=scores.__getitem__)]
        chosen.append(best.strip())
        outcomes.append(float(chosen[-1] == as_messages(row)[-1]["content"].strip()))
    return Result(mean(outcomes), outcomes, answers=chosen)


def _answered(row: Row, choice: str) -> Row:
    """Return a row whose answer is one of its choices, with the white space that its own answer begins with."""
    if row.get("messages") is not None:
        *before, answer = row["messages"]
        return {**row, "messages": [*before, {**answer, "content": choice}]}
    completion = row["completion"]
    space = completion[: len(completion) - len(completion.lstrip())]
    return {**row, "completion": space + choice.strip()}


def _token_log_likelihood(model: Model, task: Task, rows: Rows, share: Share) -> Result:
    """A text that falls into several examples is one item, whose tokens are taken together."""
    features = model.objective.encode_answers(rows, task)
    sums, counts = [0.0] * len(rows), [0] * len(rows)
    of_examples = share.over_batches(model, features, _row_sums)
    for row, (value, n) in zip(features.rows.tolist(), of_examples, strict=True):
        sums[row] += value
        counts[row] += n
    return _per_token(sums, counts)


def score_per_token(task: str, metric: str, sums: Sequence[float], counts: Sequence[int]) -> Score:
    """Return a score that is a mean over tokens, of which each item has its sum and its count.

    The outcome of an item is the mean over its own tokens; the interval is over items.
    """
    result = _per_token(sums, counts)
    low, high = _interval(metric, result)
    return Score(task, metric, result.value, low, high, len(sums), tuple(result.outcomes), {metric: result.value})


def _per_token(sums: Sequence[float], counts: Sequence[int]) -> Result:
    outcomes = [value / max(1, n) for value, n in zip(sums, counts, strict=True)]
    return Result(sum(sums) / max(1, sum(counts)), outcomes, _ratios_without(sums, counts))


def _row_sums(outputs: Any, n_rows: int) -> list[tuple[float, int]]:
    """Return each row's summed log-likelihood (nats) and number of tokens."""
    sums = torch.zeros(n_rows, dtype=torch.float64)
    sums.index_add_(0, outputs.owners.cpu(), -item_losses(outputs).double().cpu())
    counts = torch.bincount(outputs.owners.cpu(), minlength=n_rows)
    return list(zip(sums.tolist(), counts.tolist(), strict=True))


def _row_means(outputs: Any, n_rows: int) -> list[float]:
    return [value / max(1, n) for value, n in _row_sums(outputs, n_rows)]


def _labels(model: Model, task: Task, rows: Rows, share: Share) -> dict[str, Result]:
    if model.kind == "causal":  # that has no head
        chances = label_log_likelihoods(model, task, rows, share)
        pairs = [(int(numpy.argmax(own)), row["label"]) for own, row in zip(chances, rows, strict=True)]
    else:
        pairs = share.over_batches(
            model,
            model.objective.encode_answers(rows, task),
            lambda outputs, n: list(zip(outputs.logits.argmax(-1).tolist(), outputs.targets.tolist(), strict=True)),
        )
    predicted, right = (numpy.array(side) for side in zip(*pairs, strict=True))
    outcomes = (predicted == right).astype(float).tolist()
    label_of = _label_names(model, task)
    answers = [label_of.get(guess, str(guess)) for guess in predicted.tolist()]
    if len(task.labels or set(right.tolist())) == 2:
        positive = _positive_class(model, task, right)

        def f1(right: numpy.ndarray, predicted: numpy.ndarray) -> float:
            return float(f1_score(right == positive, predicted == positive, zero_division=0.0))
    else:
        known = _classes(model, task, right)

        def f1(right: numpy.ndarray, predicted: numpy.ndarray) -> float:
            # over the task's classes: a head that tasks share has others; a guess of one is wrong, but no class here
            classes = sorted({*right.tolist(), *predicted.tolist()} & known)
            return float(f1_score(right, predicted, labels=classes, average="macro", zero_division=0.0))

    return {
        "accuracy": Result(mean(outcomes), outcomes, None, answers),
        "f1": Result(f1(right, predicted), outcomes, _without(f1, right, predicted), answers),
        "matthews": Result(_matthews(right, predicted), outcomes, _without(_matthews, right, predicted), answers),
    }


def label_log_likelihoods(model: Model, task: Task, rows: Rows, share: Share) -> list[list[float]]:
    """Return the log-likelihood of each of the task's labels as the answer to each row [n_rows, n_labels], nats.

    Cost: a pass for each label, of all the row's tokens.
    """
    n_labels = len(task.labels)
    options = [{**row, "label": label} for row in rows for label in range(n_labels)]
    sums = [value for value, _ in share.over_batches(model, model.objective.encode_answers(options, task), _row_sums)]
    return [sums[first : first + n_labels] for first in range(0, len(sums), n_labels)]


def _matthews(right: numpy.ndarray, predicted: numpy.ndarray) -> float:
    """0 by definition where there is but one class; scikit-learn would warn as well."""
    several = len({*right.tolist(), *predicted.tolist()}) > 1
    return float(matthews_corrcoef(right, predicted)) if several else 0.0


def _without(metric: Callable[..., float], right: numpy.ndarray, predicted: numpy.ndarray) -> list[float]:
    """Return a metric without each item; items with the same target and guess give the same."""
    if len(right) < 2:
        return [metric(right, predicted)] * len(right)
    found: dict[tuple[int, int], float] = {}
    pairs = list(zip(right.tolist(), predicted.tolist(), strict=True))
    for item, pair in enumerate(pairs):
        if pair not in found:
            found[pair] = metric(numpy.delete(right, item), numpy.delete(predicted, item))
    return [found[pair] for pair in pairs]


def _ratios_without(sums: Sequence[float], counts: Sequence[float]) -> list[float]:
    """Return sum / count over all items but one, for each."""
    total, n = sum(sums), sum(counts)
    return [(total - own) / (n - of_own) if n > of_own else 0.0 for own, of_own in zip(sums, counts, strict=True)]


def _classes(model: Model, task: Task, right: numpy.ndarray) -> set[int]:
    """Return the targets that the task's classes have."""
    if not task.labels:
        return set(range(int(right.max()) + 1))
    own_head = task.kind == "classify" and model.adapters.head_mode == "task"
    return set(range(len(task.labels))) if own_head else {model.adapters.columns[label] for label in task.labels}


def _positive_class(model: Model, task: Task, right: numpy.ndarray) -> int:
    """Return the target of the second of two classes: within the task's own head, or among all outputs."""
    if not task.labels:
        return int(right.max())
    own_head = task.kind == "classify" and model.adapters.head_mode == "task"
    return 1 if own_head else model.adapters.columns[task.labels[1]]


def _tags(model: Model, task: Task, rows: Rows, share: Share) -> dict[str, Result]:
    names = _label_names(model, task)

    def tags(outputs: Any, n_rows: int) -> list[list[str]]:
        found: list[list[str]] = [[] for _ in range(n_rows)]
        for owner, guess in zip(outputs.owners.tolist(), outputs.logits.argmax(-1).tolist(), strict=True):
            found[owner].append(names[guess])
        return found

    features = model.objective.encode_answers(rows, task)
    right, guessed = [], []
    for row, feature, found in zip(rows, features, share.over_batches(model, features, tags), strict=True):
        answers = dict(zip(feature["read"], found, strict=True))
        targets = {word: task.labels[tag] for word, tag in enumerate(row["tags"]) if tag >= 0}
        right.append(list(targets.values()))
        guessed.append([answers.get(word, "O") for word in targets])  # a word that was not read is missed
    per_sentence = [
        1.0 if not _entities(r) and not _entities(g) else float(entity_f1([r], [g], zero_division=0))
        for r, g in zip(right, guessed, strict=True)
    ]
    hits = [[float(a == b) for a, b in zip(r, g, strict=True)] for r, g in zip(right, guessed, strict=True)]
    n_right, n_words = [sum(hit) for hit in hits], [len(hit) for hit in hits]
    answers = [" ".join(tags) for tags in guessed]
    entities = [(set(get_entities(r)), set(get_entities(g))) for r, g in zip(right, guessed, strict=True)]
    return {
        "entity_f1": Result(
            float(entity_f1(right, guessed, zero_division=0)),
            per_sentence,
            # F1 = 2 found / (entities there + entities guessed)
            _ratios_without([2 * len(r & g) for r, g in entities], [len(r) + len(g) for r, g in entities]),
            answers,
        ),
        "accuracy": Result(
            sum(n_right) / max(1, sum(n_words)),
            [mean(hit) if hit else 1.0 for hit in hits],
            _ratios_without(n_right, n_words),
            answers,
        ),
    }


def _label_names(model: Model, task: Task) -> dict[int, str]:
    """Return the label that each target stands for: of the task's own head, or among all outputs."""
    if task.kind != "tensor" and model.adapters.head_mode == "task":
        return dict(enumerate(task.labels))
    return {column: label for label, column in model.adapters.columns.items()}


def _entities(tags: list[str]) -> bool:
    return any(tag != "O" for tag in tags)


def _interval(name: str, result: Result) -> tuple[float | None, float | None]:
    """Wilson for right or wrong; Student for other means; else the jackknife, or where no item makes a difference to
    the value the interval of the outcomes, moved to it; None for one item."""
    bounds = range_of(name)
    interval = outcome_interval(result.outcomes, bounds)
    if result.without is not None:
        moved = result.value - interval.value
        around = within(Interval(result.value, interval.low + moved, interval.high + moved), bounds)
        interval = jackknife_interval(result.value, result.without, bounds)
        interval = around if math.isnan(interval.low) else interval
    return (None, None) if math.isnan(interval.low) else (interval.low, interval.high)

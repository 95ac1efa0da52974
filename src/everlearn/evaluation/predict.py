"""What a model answers to rows without right answers: texts, labels, tags, or a plain module's outputs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from everlearn.errors import StreamError, check_number, describe
from everlearn.evaluation.generate import generate_greedily
from everlearn.evaluation.heads import labels_taken
from everlearn.evaluation.score import label_log_likelihoods
from everlearn.evaluation.sharing import Share
from everlearn.learners.gradients import to_device
from everlearn.learners.loader import row_batches
from everlearn.memory.scores import row_entropies
from everlearn.memory.selection import entropies
from everlearn.models.targets import output_of
from everlearn.seeds import seed_for, seeded
from everlearn.types import Outputs, Row, Task, TensorRows

if TYPE_CHECKING:
    from everlearn.way import Run

WRITTEN_ON = 64  # tokens that a text is gone on with, where nothing else is said
_ASKS_BY = {"prompt": "prompt", "preference": "prompt", "tag": "tokens"}  # the others by their text
_WANTED = {
    "prompt": "texts, {'prompt': text} or {'messages': [...]}",
    "preference": "texts, {'prompt': text} or {'prompt': [messages]}",
    "text": "texts or {'text': text}",
    "classify": "texts or {'text': text}",
    "multilabel": "texts or {'text': text}",
    "score": "texts or {'text': text}",
    "tag": "lists of words or {'tokens': [...]}",
}


def predict(run: "Run", task: Task, rows: Any, max_new_tokens: int | None = None) -> list[Any] | torch.Tensor:
    """Return the model's answer to each row, as it answers a task now; nothing of its state changes.

    Args:
        task: whose head, mask or adapter answers.
        rows: by the task's kind. prompt, preference: texts, or rows {"prompt": ...} or {"messages": [...]} (of
            preferences {"prompt": [...]}); answers that a row brings aren't looked at. text: texts to go on with, or
            rows {"text": ...}. classify, multilabel, score: texts, or rows {"text": ..., "text_pair": ...}. tag: lists
            of words, or rows {"tokens": [...]}. tensor: inputs [n, ...], a list of them (or arrays), or a DataLoader
            (of its batches the first part), read batch by batch.
        max_new_tokens: of a text; by default what the task's own answers need, or 64 to go on with a text.

    Returns:
        prompt, preference, text: the likeliest text, token by token, up to what ends an answer (with steps, what stands
        behind them). classify: label names. multilabel: lists of them. score: numbers, in the unit of the task's rows.
        tag: a label name for each word, None for words beyond the context. tensor: outputs [n, ...] on the CPU.

    Raises:
        StreamError: if a row lacks what the task asks with, or the module can't take an input.
        ConfigError: if `max_new_tokens` is below 1.
    """
    _check_rows(rows)
    if max_new_tokens is not None:
        check_number("max_new_tokens", max_new_tokens, low=1)
    with (
        seeded(seed_for(run.seed, "predict", task.name)), run.ready_for(task), run.model.evaluating(),
        torch.no_grad(), run.accelerator.autocast(),
    ):  # fmt: skip
        if task.kind == "tensor":
            return _outputs(run, task, rows)
        asked = [asked_row(task, number, row) for number, row in enumerate(rows)]
        if task.kind == "classify" and run.model.kind == "causal":
            chances = _label_chances(run, task, asked)
            return [task.labels[max(range(len(own)), key=own.__getitem__)] for own in chances]
        if run.model.kind == "causal":
            return _texts(run, task, asked, max_new_tokens)
        if task.kind == "score":
            parts = [part.logits.float().flatten() for _, part in outputs_for(run, task, asked)]
            scale = run.model.adapters.scales[task.name]
            return [scale.restored(output) for part in parts for output in part.tolist()]
        if task.kind == "multilabel":
            parts = [part.logits.float().sigmoid().tolist() for _, part in outputs_for(run, task, asked)]
            taken = labels_taken(run.model, task, [chances for part in parts for chances in part])
            return [[label for label, there in zip(task.labels, own, strict=True) if there] for own in taken]
        names = _label_names(run, task)
        guesses: list[list[str]] = [[] for _ in asked]
        for indices, found in outputs_for(run, task, asked):
            for owner, guess in zip(found.owners.tolist(), found.logits.argmax(-1).tolist(), strict=True):
                guesses[indices[owner]].append(names[guess])
    return [guess for (guess,) in guesses] if task.kind == "classify" else _of_words(run, task, asked, guesses)


def uncertainty(run: "Run", task: Task, rows: Any, max_new_tokens: int | None = None) -> torch.Tensor:
    """Return how uncertain the model is of its answer to each row [n]: the entropy of what it predicts, nats.

    classify: of the task's labels, 0 to ln(number of labels). multilabel: the sum over its labels. tag: a mean over the
    words. prompt: over the tokens of the answer that the model itself gives. text: over the text's own tokens. tensor:
    of the classes.

    Args:
        rows, max_new_tokens: as for `predict`.

    Raises:
        StreamError: as `predict`; or if answers are real numbers or preferences, which have no entropy.

    Cost: a forward pass; of prompts after the answers are written.
    """
    _check_rows(rows)
    known = task.evaluation if len(task.evaluation) else task.train
    of_numbers = task.kind == "tensor" and task.targets(known).is_floating_point()
    if of_numbers or task.kind in ("score", "preference"):
        way_out = "Measure it on a task with classes or prompts"
        what = f"what {'numbers' if task.kind != 'preference' else 'preferences'} answer has no entropy"
        raise StreamError(describe("uncertainty", what, task.name, way_out))
    if task.kind == "tensor":
        return entropies(predict(run, task, rows))
    written = predict(run, task, rows, max_new_tokens) if task.kind == "prompt" else rows
    asked = [asked_row(task, number, row) for number, row in enumerate(rows)]
    if task.kind == "prompt":
        asked = [_answered(row, answer) for row, answer in zip(asked, written, strict=True)]
    with run.ready_for(task):
        if task.kind == "classify" and run.model.kind == "causal":
            return entropies(torch.tensor(_label_chances(run, task, asked)).view(len(asked), -1))
        return row_entropies(run, task, asked, run.eval_batch_size)


def _label_chances(run: "Run", task: Task, rows: list[Row]) -> Sequence[Sequence[float]]:
    """Return the log-likelihood of each label word, for each row, as a language model has them."""
    share = Share(run.accelerator, run.eval_batch_size)
    return label_log_likelihoods(run.model, task, rows, share) if rows else []


def _check_rows(rows: Any) -> None:
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise StreamError(describe("predict", "is given no list of rows", rows, "Give a list, of one row or more"))


def _answered(row: Row, answer: str) -> Row:
    """Return a prompt's row with the model's answer."""
    if "messages" in row:
        return {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": answer}]}
    return {**row, "completion": answer}


def outputs_for(run: "Run", task: Task, rows: Sequence[Any]) -> Iterator[tuple[list[int], Outputs]]:
    """Yield (numbers of the rows, what the model puts out for them)."""
    objective = run.model.objective
    for indices, batch in row_batches(objective, rows, task, run.eval_batch_size) if len(rows) else ():
        yield indices, objective.forward(run.model.network, to_device(batch, run.accelerator.device))


def asked_row(task: Task, number: int, row: Any) -> Row:
    """Return a row as the objective takes it, with some answer, which isn't looked at."""
    key = _ASKS_BY.get(task.kind, "text")
    if task.kind == "prompt" and ("messages" in row if isinstance(row, Mapping) else not isinstance(row, str)):
        key = "messages"
    row = row if isinstance(row, Mapping) else {key: row}
    asks = row.get(key)
    kinds = {"messages": list | tuple, "tokens": list | tuple}.get(key, str)
    kinds = str | list | tuple if task.kind == "preference" else kinds
    if not isinstance(asks, kinds) or not len(asks):
        where, way_out = f"predict: row {number}", f"Give {_WANTED[task.kind]}"
        raise StreamError(describe(where, f"is no {task.kind} row, as task {task.name!r} has them", row, way_out))
    if key == "messages":
        before = asks[:-1] if asks[-1]["role"] == "assistant" else asks
        return {**row, "messages": [*before, {"role": "assistant", "content": ""}]}
    answer: dict[str, dict[str, Any]] = {
        "prompt": {"completion": ""},
        "preference": {"chosen": "", "rejected": ""},
        "classify": {"label": 0},
        "multilabel": {"labels": []},
        "score": {"score": 0.0},
        "tag": {"tags": [0] * len(asks)},
    }
    return {**row, **answer.get(task.kind, {})}


def _texts(run: "Run", task: Task, rows: list[Row], max_new_tokens: int | None) -> list[str]:
    objective = run.model.objective
    if task.kind == "text":
        room = max_new_tokens or task.max_new_tokens or min(WRITTEN_ON, objective.max_length // 2)
        prompts = objective.prompt_ids([row["text"] for row in rows], room, chat=False)
    else:
        room = max_new_tokens or objective.answer_room(task)
        prompts = objective.questions(rows, room)
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))  # those of like length share a batch
    answers: dict[int, str] = {}
    for low in range(0, len(order), run.eval_batch_size):
        chosen = order[low : low + run.eval_batch_size]
        asked = [prompts[i] for i in chosen]
        found = generate_greedily(run.model.network, objective, asked, room, run.accelerator.device)
        answers |= dict(zip(chosen, map(objective.final_answer, found), strict=True))
    return [answers[i] for i in range(len(rows))]


def _label_names(run: "Run", task: Task) -> dict[int, str]:
    """Return the label that each output stands for."""
    adapters = run.model.adapters
    if adapters.head_mode == "shared":
        return {column: label for label, column in adapters.columns.items()}
    return dict(enumerate(task.labels))


def _of_words(run: "Run", task: Task, rows: list[Row], guesses: list[list[str]]) -> list[list[str | None]]:
    features = run.model.objective.encode(rows, task)
    read = [dict(zip(feature["read"], found, strict=True)) for feature, found in zip(features, guesses, strict=True)]
    return [[own.get(word) for word in range(len(row["tokens"]))] for own, row in zip(read, rows, strict=True)]


def _outputs(run: "Run", task: Task, rows: Any) -> torch.Tensor:
    if isinstance(rows, DataLoader):
        first = [_outputs(run, task, batch[0] if isinstance(batch, list | tuple) else batch) for batch in rows]
        return torch.cat(first) if first else _outputs(run, task, [])
    rows = rows if isinstance(rows, torch.Tensor) else list(rows)
    if not len(rows):
        raise StreamError(describe("predict", "is given no row", rows, "Give one or more"))
    known = task.evaluation if len(task.evaluation) else task.train
    if not isinstance(rows, torch.Tensor) and not isinstance(known, TensorRows):  # samples: a collate_fn puts them
        target = known[0]["y"] if len(known) else 0  # into a batch, beside targets that aren't looked at
        asked: Sequence[Any] = [{"x": x, "y": target} for x in rows]
    else:
        x = rows if isinstance(rows, torch.Tensor) else _stacked(rows)
        own = next((p.dtype for p in run.model.network.parameters() if p.is_floating_point()), x.dtype)
        x = x.to(own) if x.is_floating_point() else x
        output_of("predict", run.model, x[:2])
        asked = TensorRows(x, torch.zeros(len(x), dtype=torch.long))
    return torch.cat([found.logits.cpu() for _, found in outputs_for(run, task, asked)])


def _stacked(rows: Sequence[Any]) -> torch.Tensor:
    """Return inputs [n, ...] of tensors, arrays or lists of numbers."""
    try:
        return torch.stack([torch.as_tensor(row) for row in rows])
    except (TypeError, ValueError, RuntimeError) as error:
        reason, way_out = str(error).strip().splitlines()[0], "Give tensors of one shape, or one tensor [n, ...]"
        raise StreamError(describe("predict", f"its rows make no tensor ({reason})", rows[0], way_out)) from error

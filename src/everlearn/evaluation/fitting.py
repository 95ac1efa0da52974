"""What of a task's rows the model can't take, or can't ever get right: counted before anything is trained, and told."""

from collections.abc import Iterator
from dataclasses import dataclass

from everlearn.evaluation.score import is_right, metric_names
from everlearn.models.causal import CausalObjective
from everlearn.models.labelled import TagObjective, TextObjective
from everlearn.models.load import Model
from everlearn.types import Rows, Task

ROLES = {"train": "training", "validation": "validation", "evaluation": "evaluation"}
_TRIED = 50  # answers that a verifier is shown
Counts = dict[str, int]


@dataclass(frozen=True)
class Fit:
    """How a task fits a model.

    Attributes:
        counts: {role: what was counted of its rows}; `n` rows, `n_cut` of them cut, and by kind `n_answers_cut`,
            `n_questions_cut`, `n_out_of_reach`, `n_words_unread`, `n_examples` that a text falls into.
        sentences: what the user should know.
    """

    counts: dict[str, Counts]
    sentences: tuple[str, ...]


def fit_of(model: Model, task: Task) -> Fit:
    """Return how a task's rows fit a model.

    Raises:
        StreamError: if the model's chat template refuses a row.
    Cost: all rows go through the tokenizer once, evaluation rows of prompts twice. What comes of rows of a table is
        kept for their training and scoring.
    """
    rows = {role: found for role in ROLES if (found := vars(task)[role]) is not None and len(found)}
    counts = {role: {"n": len(found), **_count(model, task, role, found)} for role, found in rows.items()}
    sentences = [sentence for role, own in counts.items() for sentence in _cuts(model, task, role, own)]
    if isinstance(model.objective, CausalObjective) and task.kind == "prompt":
        if "evaluation" in rows and "exact_match" in metric_names(task):
            more, of_answers = _answers(model.objective, task)
            counts["evaluation"] |= more
            sentences += of_answers
        if model.objective.wraps and any(row.get("messages") is None for found in rows.values() for row in found):
            sentences.append(
                f"{_name(task)}: prompts and completions are put as turns of the model's chat template "
                "(model.chat: never leaves them as they are)."
            )
    return Fit(counts, tuple(sentences))


def _count(model: Model, task: Task, role: str, rows: Rows) -> Counts:
    objective = model.objective
    if isinstance(objective, CausalObjective):
        features = (objective.encode if role == "train" else objective.encode_answers)(rows, task)
        if task.kind == "text":
            return {"n_cut": 0, "n_examples": len(features)}
        room = objective.max_length - len(objective.prefix) - 1
        n_cut = int((features.sizes.sum(1) > objective.max_length).sum())
        return {"n_cut": n_cut, "n_answers_cut": int((features.sizes[:, 1] > room).sum())}
    if isinstance(objective, TextObjective):
        return {"n_cut": sum(n > objective.max_length for n in objective.lengths(rows))}
    if isinstance(objective, TagObjective):
        n_cut = sum(n > objective.max_length for n in objective.lengths(rows))
        tagged = [sum(tag >= 0 for tag in row["tags"]) for row in rows]
        return {"n_cut": n_cut, "n_words_unread": sum(tagged) - objective.n_words_read(rows)}
    return {"n_cut": 0}


def _cuts(model: Model, task: Task, role: str, counts: Counts) -> Iterator[str]:
    """Yield what is to be said of rows that are too long."""
    if counts.get("n_words_unread"):
        what = "count as missed" if role == "evaluation" else "teach nothing"
        yield f"{_name(task)}: {counts['n_words_unread']} words of {ROLES[role]} rows are not read and {what}."
    if not counts["n_cut"]:
        return
    limit = model.objective.max_length
    sentence = f"{_name(task)}: {counts['n_cut']} of {counts['n']} {ROLES[role]} rows are longer than {limit} tokens"
    if "n_answers_cut" in counts:
        sentence += " and lose the start of their prompt"
        if counts["n_answers_cut"]:
            sentence += f", {counts['n_answers_cut']} of them the end of their answer as well"
    else:
        sentence += " and are cut"
    yield f"{sentence} (model.max_length)."


def _answers(objective: CausalObjective, task: Task) -> tuple[Counts, list[str]]:
    """Count the evaluation rows whose question is cut to leave room, or whose answer is longer than that room; return
    with the counts what is to be said of answers that can never count as right."""
    room, answers = objective.answer_room(task), objective.answer_ids(task.evaluation, task)
    lengths = objective.lengths(task.evaluation, task)
    counts = {
        "n_questions_cut": sum(prompt + room > objective.max_length for prompt, _ in lengths),
        "n_out_of_reach": sum(len(answer) > room for answer in answers),
    }
    return counts, list(_unreachable(objective, task, counts, room, answers))


def _unreachable(
    objective: CausalObjective, task: Task, counts: Counts, room: int, answers: list[list[int]]
) -> Iterator[str]:
    n = len(answers)
    if room >= objective.max_length:
        return  # refused when the first question is asked
    if counts["n_questions_cut"]:
        yield (
            f"{_name(task)}: {counts['n_questions_cut']} of {n} questions lose their start to leave room for an answer "
            f"of {room} tokens."
        )
    if counts["n_out_of_reach"]:
        way_out = "leave task.max_new_tokens out" if task.max_new_tokens is not None else "raise model.max_length"
        yield (
            f"{_name(task)}: {counts['n_out_of_reach']} of {n} answers are longer than the {room} tokens that the "
            f"model may give and can never be right; {way_out}."
        )
    unknown = objective.tokenizer.unk_token_id
    n_unknown = sum(unknown in ids for ids in answers)
    if n_unknown:
        yield f"{_name(task)}: {n_unknown} of {n} answers hold characters that the tokenizer doesn't know."
    if task.verifier is not None:
        tried = [task.evaluation[i] for i in range(min(n, _TRIED))]
        if not any(is_right(task, objective.right_answer(row), row, objective) for row in tried):
            yield (
                f"{_name(task)}: the verifier {task.verifier!r} accepts none of {len(tried)} right answers, so that no "
                "answer may ever count as right."
            )


def _name(task: Task) -> str:
    return f"task {task.name!r}"

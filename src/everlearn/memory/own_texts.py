"""Texts that a language model writes by itself, with what it thought of each of their tokens: what it knows, sampled
without any data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError, describe
from everlearn.evaluation.generate import draw_answers
from everlearn.functional.distill import divergences
from everlearn.learners.loader import row_batches
from everlearn.learners.teacher import as_base
from everlearn.memory.answers import Answers, AnswerTable, record_answers
from everlearn.models.causal import CausalObjective
from everlearn.models.chat import TemplateRefusal
from everlearn.models.objectives import to_device
from everlearn.seeds import generator_for
from everlearn.types import Row, Task

if TYPE_CHECKING:
    from everlearn.way import Run

# ids [n_tokens]: the texts end to end; lengths, n_asked [n_texts]: tokens of each, and how many of these it was given
OwnTexts = dict[str, torch.Tensor]  # int32
TASK = Task("abilities/self", "text", (), ())  # how their rows are encoded
WRITTEN_AT_ONCE = 32
_PROBE = "xyzzy"  # a question that no chat template writes by itself


def write_own_texts(
    run: "Run", *, n_texts: int, max_tokens: int, top_k: int, batch_size: int, purpose: Sequence[object]
) -> tuple[OwnTexts, Answers]:
    """Let the base model write texts by itself, and take its log-probabilities at each token that it wrote.

    A chat model writes a user's turn after the beginning that its chat template gives it, then answers that: the answer
    alone is kept as written, the turn as asked. Another model writes on from the token that begins a text. All tokens
    are drawn at temperature 1, so that a mean over them is one over what the base itself says.

    Args:
        max_tokens: of a text, or an answer; a user's turn has half as many at most.
        top_k: classes kept at each token, all others together as one more.
        batch_size: texts at once when their log-probabilities are taken.
        purpose: seeds the draws; the same purpose and base give the same texts.

    Returns:
        (The texts, the log-probabilities), the same in every process. The base is the model without what was added to
        it (see `as_base`).

    Raises:
        ConfigError: if no token begins a text.

    Cost: max_tokens passes of n_texts tokens (half more for a chat model), and one over the texts. Keeps 6 * top_k + 8
        bytes a token.

    Source: a chat model's user turn: Xu et al. 2024 (Magpie), arXiv 2406.08464.
    """
    numbers = range(n_texts)
    with as_base(run), run.accelerator.autocast():
        texts = [
            text
            for low in range(0, n_texts, WRITTEN_AT_ONCE)
            for text in _write(run, numbers[low : low + WRITTEN_AT_ONCE], max_tokens, purpose)
        ]
    texts = run.processes.gather(texts)[0]
    written: OwnTexts = {
        "ids": torch.tensor([token for asked, answer in texts for token in (*asked, *answer)], dtype=torch.int32),
        "lengths": torch.tensor([len(asked) + len(answer) for asked, answer in texts], dtype=torch.int32),
        "n_asked": torch.tensor([len(asked) for asked, _ in texts], dtype=torch.int32),
    }
    with as_base(run):
        (answers,) = record_answers(
            run, TASK, rows_of_texts(written), score=lambda outputs: [F.log_softmax(outputs.logits.float(), dim=-1)],
            top_k=top_k, batch_size=batch_size,
        )  # fmt: skip
    return written, answers


def rows_of_texts(texts: OwnTexts) -> list[Row]:
    """Return texts as rows of `TASK`: their tokens, of which the first `n_asked` are no targets."""
    pieces = texts["ids"].long().split(texts["lengths"].tolist())
    return [{"input_ids": ids.tolist(), "n_asked": n} for ids, n in zip(pieces, texts["n_asked"].tolist(), strict=True)]


def first_texts(texts: OwnTexts, answers: Answers, n: int) -> tuple[OwnTexts, Answers]:
    """Return the first n texts, with what the base thought of them."""
    n_tokens = int(texts["lengths"][:n].sum())
    kept = {"ids": texts["ids"][:n_tokens], "lengths": texts["lengths"][:n], "n_asked": texts["n_asked"][:n]}
    return kept, AnswerTable(answers).pick(range(len(kept["lengths"])))


def divergences_on(run: "Run", texts: OwnTexts, answers: Answers, batch_size: int) -> list[tuple[float, int]]:
    """Return for each text (sum over its tokens of KL(base || model), nats, number of tokens), in evaluation mode.

    Over the classes that were kept and the rest as one, which is at most the divergence over all classes.

    Cost: one forward pass over the texts, shared out over processes.
    """
    table, rows, found = AnswerTable(answers), rows_of_texts(texts), {}
    objective, device = run.model.objective, run.accelerator.device
    with torch.no_grad(), run.model.evaluating(), run.accelerator.autocast():
        for indices, batch in row_batches(objective, rows, TASK, batch_size, **run.processes.share):
            outputs = objective.forward(run.model.network, to_device(batch, device))
            per_token, owners = divergence_at(table, indices, outputs.logits).double().cpu(), outputs.owners.cpu()
            sums = torch.zeros(len(indices), dtype=torch.float64).index_add_(0, owners, per_token)
            counts = torch.bincount(owners, minlength=len(indices))
            found |= dict(zip(indices, zip(sums.tolist(), counts.tolist(), strict=True), strict=True))
    together = {index: one for part in run.processes.gather(found) for index, one in part.items()}
    return [together[index] for index in sorted(together)]


def divergence_at(table: AnswerTable, rows: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
    """Return KL(base || model) at each token of some texts [n_tokens], nats.

    Args:
        logits: the model's [n_tokens, n_classes], in the order of the texts.
    """
    before, now, _ = table.compare(rows, logits)
    return divergences(F.log_softmax(before, dim=-1), F.log_softmax(now, dim=-1))


def _write(
    run: "Run", numbers: Sequence[int], max_tokens: int, purpose: Sequence[object]
) -> list[tuple[list[int], list[int]]]:
    """Return (what is asked, what is written) of each text, as tokens."""
    objective: CausalObjective = run.model.objective
    room = min(max_tokens, objective.max_length // 2)

    def draw(prompts: Sequence[list[int]], turn: str, n_tokens: int) -> list[list[int]]:
        generators = [generator_for(*purpose, turn, number) for number in numbers]
        uniforms = torch.stack([torch.rand(n_tokens, generator=generator) for generator in generators])
        return draw_answers(run.model.network, objective, prompts, uniforms, run.accelerator.device)

    asked = _user_turn(objective) if objective.wraps else None
    if asked is None:
        prompts = [_beginning(objective)] * len(numbers)
    else:
        turns = draw([asked] * len(numbers), "user", max(1, room // 2))
        questions = [[{"role": "user", "content": objective.answer_of(turn) or "?"}] for turn in turns]
        prompts = objective.prompt_ids(
            [objective.format.render(question, asks=True) for question in questions], room, chat=True
        )
    return list(zip(prompts, draw(prompts, "text", room), strict=True))


def _user_turn(objective: CausalObjective) -> list[int] | None:
    """Return what a conversation is before the user's first words; None where the template writes no such turn."""
    try:
        before, found, _ = objective.format.render([{"role": "user", "content": _PROBE}]).partition(_PROBE)
    except TemplateRefusal:
        return None
    return objective.format.ids(before) if found and before else None


def _beginning(objective: CausalObjective) -> list[int]:
    """Return what every text begins with."""
    tokenizer = objective.tokenizer
    first = next((token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None), None)
    if not objective.prefix and first is None:
        way_out = "Use a tokenizer with a bos or eos token, or leave out what needs the model's own texts"
        raise ConfigError(describe("model", "no token begins a text, so it can't write one by itself", None, way_out))
    return objective.prefix or [first]

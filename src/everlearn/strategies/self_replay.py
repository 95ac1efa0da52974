"""Self-replay: the base model's own texts are replayed and distilled, so that what it knew stays without its data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_number
from everlearn.memory.answers import AnswerTable, cut_answers
from everlearn.memory.own_texts import TASK, divergence_at, first_texts, rows_of_texts, write_own_texts
from everlearn.models.objectives import losses_at
from everlearn.registry import register
from everlearn.strategy import MAKES_ROWS, Strategy, learned
from everlearn.types import Examples, Group, Mixture, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_UNSUITED = "it learns from texts that the model writes by itself, which only language models that write do"


@register("strategy", "self_replay")
@dataclass
class SelfReplay(Strategy):
    """Mix texts that the base model wrote by itself into every batch, and hold what it thought of their tokens.

    mean over rows of: CE of a new row; strength * mean over its tokens of KL(base || model) of one of the base's texts.
    The base is the model before it learned anything, without its LoRA or soft prompt. It writes once, before the first
    task, at temperature 1 and unasked: a chat model both the question and the answer, of which the answer counts. What
    it thinks of each token is kept, cut to its likeliest classes and all others as one: the base isn't asked again, so
    that a step has one forward pass, and all weights may be trained.

    Args:
        n_texts: texts that the base writes; where it is lowered, the last ones are let go.
        max_tokens: of a text; of a chat model's answer, whose question has half as many at most.
        ratio: texts in a batch for each new row.
        strength: weight of a text's divergence beside a new row's cross-entropy.
        top_k: classes kept at each token, beside the rest as one.
        batch_size: texts at once when their log-probabilities are taken; the result doesn't depend on it.

    Cost: about (1 + ratio) times plain training where texts are as long as rows; before the first task, max_tokens
    passes of n_texts tokens (half more for a chat model) and one over the texts. Keeps 6 * top_k + 8 bytes a token.

    Source: Li & Hoiem 2016, arXiv 1606.09282 (Learning without Forgetting), eq. 2, the distillation from the model of
    before; Huang et al. 2024, arXiv 2403.01244 (Self-Synthesized Rehearsal), the rehearsal of what the model writes;
    Xu et al. 2024, arXiv 2406.08464 (Magpie), the question that a chat model writes by itself.
    Departs: of LwF the inputs, which are the base's own and not the new task's, and T = 1. Of Self-Synthesized
    Rehearsal: nothing of earlier tasks is shown to the model that writes, nothing is refined or chosen, and the base's
    distribution is learned, not its text. KL is over the kept classes and the rest, at most that over all.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    n_texts: int = 64
    max_tokens: int = 48
    ratio: float = 0.5
    strength: float = 1.0
    top_k: int = 64
    batch_size: int = 8

    texts_: dict = learned(dict)  # the base's texts, see memory/own_texts.py
    answers_: dict = learned(dict)  # TASK's name -> what the base thought of their tokens

    unsuited: ClassVar[dict[str, str]] = {
        "classify": _UNSUITED,
        "tag": _UNSUITED,
        "tensor": _UNSUITED,
        "preferences": "it makes rows with one answer, and preferences are of two",
        "trainer": MAKES_ROWS,
    }
    neutral: ClassVar[dict] = {"ratio": 0.0}

    def __post_init__(self) -> None:
        check_number("self_replay.n_texts", self.n_texts, low=1)
        check_number("self_replay.max_tokens", self.max_tokens, low=1)
        check_number("self_replay.ratio", self.ratio, low=0)
        check_number("self_replay.strength", self.strength, low=0)
        check_number("self_replay.top_k", self.top_k, low=1)
        check_number("self_replay.batch_size", self.batch_size, low=1)
        self._group = 0  # number of the texts' group in the mixture; 0 where nothing is replayed
        self._table: AnswerTable | None = None

    def begin_task(self, run: "Run", task: Task) -> None:
        if self.ratio == 0:
            return
        if self.texts_:
            answers = cut_answers(self.answers_[TASK.name], self.top_k)
            self.texts_, self.answers_[TASK.name] = first_texts(self.texts_, answers, self.n_texts)
            return
        if run.learned and run.model.adapters.mode == "full":
            run.note(
                "self_replay: all weights are trained and some tasks were learned, so what the model knows now counts "
                "as what it knew before."
            )
        self.texts_, self.answers_[TASK.name] = write_own_texts(
            run, n_texts=self.n_texts, max_tokens=self.max_tokens, top_k=self.top_k, batch_size=self.batch_size,
            purpose=(run.seed, "self_replay"),
        )  # fmt: skip

    def train_data(self, mixture: Mixture, run: "Run") -> Mixture:
        self._group = len(mixture.groups) if self.ratio > 0 else 0
        if not self._group:
            return mixture
        self._table = AnswerTable(self.answers_[TASK.name])
        return Mixture((*mixture.groups, Group((Examples(TASK, rows_of_texts(self.texts_)),), self.ratio, by_row=True)))

    def penalty(self, step: Step) -> torch.Tensor | None:
        own = step.items_of({self._group}) if self._group else None
        if own is None or not own.any():
            return None
        rows = [row for group, row in step.rows if group == self._group]
        held = self.strength * step.total(divergence_at(self._table, rows, step.outputs.logits[own]), own)
        return (held - step.total(losses_at(step.outputs, own), own)) / len(own)

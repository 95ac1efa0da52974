"""Self-distillation: the model that sees the demonstration teaches the model that doesn't, on the latter's answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.evaluation.generate import draw_answers
from everlearn.functional.distill import divergences
from everlearn.functional.quadratic import follow
from everlearn.learners.teacher import as_teacher
from everlearn.models.causal import CausalObjective
from everlearn.models.objectives import IGNORED, Batch, losses_at, to_device
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import MAKES_ROWS, NEEDS_TARGETS, Strategy, learned
from everlearn.types import Row, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

_UNSUITED = "it learns from answers that the model generates, which only language models do"
_OTHER_ROWS = "sdft needs each task's own rows, which the other replaces"


def shown(row: Row, template: str) -> Row:
    """Return the row with its answer shown in its prompt: in the last message before it, where there are messages."""
    if "messages" not in row:
        return {**row, "prompt": template.format(prompt=row["prompt"], completion=row["completion"])}
    *before, asked, answer = row["messages"]
    content = template.format(prompt=asked["content"], completion=answer["content"])
    return {**row, "messages": [*before, {**asked, "content": content}, answer]}


def answered(objective: CausalObjective, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> Batch:
    """Return the batch of prompts with answers after them, whose targets are the answers' tokens."""
    pairs = list(zip(prompts, answers, strict=True))
    return objective.collate([{"input_ids": p + a, "labels": [IGNORED] * len(p) + a} for p, a in pairs])


def mean_per_row(values: torch.Tensor, owners: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Return the mean of each row's values [n_rows]. owners: the row of each value."""
    sums = torch.zeros(n_rows, device=values.device).index_add(0, owners, values)
    return sums / torch.bincount(owners, minlength=n_rows)


@register("strategy", "sdft")
@dataclass
class SDFT(Strategy):
    """Draw an answer from the prompt alone, and move it to what the model would say with the demonstration in sight.

    In place of the task's own loss: the mean over tokens t of an answer y drawn from the student of
    KL(student(. | x, y_<t) || teacher(. | x, demonstration, y_<t)), over all the vocabulary. The teacher is the same
    model with slowly following weights: w_T <- (1 - teacher_rate) w_T + teacher_rate w after each step. What is
    drawn isn't differentiated. Rows that other methods mix in keep their own loss. It needs a model that learns from
    what it is shown: the authors' smallest, of 3B parameters, did worse by it than by plain training.

    Args:
        strength: share of the self-distillation in the loss of the task's rows; the demonstration's own cross-entropy
            has the rest. 1 is the method.
        divergence: reverse, KL(student || teacher), as in the paper's equations; or forward, KL(teacher || student), by
            which its results were got, as its authors' code says.
        teacher_rate: 0 keeps the teacher as it was before the task, 1 takes the present weights.
        max_new_tokens: of an answer that is drawn; null takes the task's.
        template: how the teacher's prompt shows the demonstration: {prompt} and {completion} are filled in.

    Cost: a step also draws an answer to each row (most of the time, for long answers), takes a forward and backward
    pass over them and a forward pass with the longer prompt. Keeps a float32 copy of the trainable weights in a task.

    Source: Shenfeld et al. 2026, arXiv 2601.19897, eq. 1 and algorithm 1, with appendix A.1's analytic estimator.
    Departs: the template's words; rows weigh by their demonstration's length, as a task's own rows do in the loop's
    loss; the teacher starts anew at each task.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    strength: float = 1.0
    divergence: str = "reverse"
    teacher_rate: float = 0.01
    max_new_tokens: int | None = None
    template: str = "{prompt}\n\nA good answer to this is:\n{completion}\n\nNow give one of your own.\n\n{prompt}"

    teacher_: dict = learned(dict)  # the teacher's trainable weights, float32

    neutral: ClassVar[dict] = {"strength": 0.0}
    unsuited: ClassVar[dict[str, str]] = {
        "classify": _UNSUITED,
        "tag": _UNSUITED,
        "tensor": _UNSUITED,
        "preferences": "it makes rows with one answer, and preferences are of two",
        "trainer": MAKES_ROWS,
        "rollouts": NEEDS_TARGETS,
    }
    conflicts: ClassVar[dict[str, str]] = {"joint": _OTHER_ROWS, "cumulative": _OTHER_ROWS, "gdumb": _OTHER_ROWS}

    def __post_init__(self) -> None:
        check_number("sdft.strength", self.strength, low=0, high=1)
        check_choice("sdft.divergence", self.divergence, ("reverse", "forward"))
        check_number("sdft.teacher_rate", self.teacher_rate, low=0, high=1)
        if self.max_new_tokens is not None:
            check_number("sdft.max_new_tokens", self.max_new_tokens, low=1)
        try:
            holds_completion = "\0" in str(self.template).format(prompt="", completion="\0")
        except (KeyError, IndexError, ValueError):
            holds_completion = False
        if not holds_completion:
            way_out = "Write {completion} where the demonstration goes, {prompt} for the prompt, and no other braces"
            raise ConfigError(describe("sdft.template", "doesn't show the demonstration", self.template, way_out))
        self._asked: dict[int, tuple[list[int], list[int]]] = {}  # of each row, what student and teacher are given

    def begin_task(self, run: "Run", task: Task) -> None:
        if self.strength > 0 and task.kind != "prompt":
            way_out = "Give the task prompts and completions, or use another method"
            raise ConfigError(describe(f"task {task.name!r}", "sdft needs prompts to answer", task.kind, way_out))
        moves = self.strength > 0 and self.teacher_rate < 1
        weights = run.model.adapters.trainable() if moves else {}
        self.teacher_ = {name: p.detach().float().clone() for name, p in weights.items()}

    def penalty(self, step: Step) -> torch.Tensor | None:
        rows = [row for _, row in step.rows[: step.n_new]]
        if self.strength == 0 or not rows:
            return None
        outputs = step.outputs
        own = outputs.owners < step.n_new
        plain = step.total(losses_at(outputs, own), own)
        distilled = step.total(self._distances(step, rows)[outputs.owners[own]], own)
        return self.strength * (distilled - plain) / len(own)

    def after_step(self, step: Step) -> None:
        if not self.teacher_:
            return
        follow(next(iter(step.params.values())).device, self.teacher_)
        names = list(self.teacher_)
        with torch.no_grad():
            present = [step.params[name].float() for name in names]
            torch._foreach_lerp_([self.teacher_[name] for name in names], present, self.teacher_rate)

    def end_task(self, run: "Run", task: Task) -> None:
        self.teacher_, self._asked = {}, {}

    def _prompt_ids(self, step: Step, row: int, n_tokens: int) -> tuple[list[int], list[int]]:
        """Return what the student, and what the teacher is given of a row; encoded when it first comes."""
        if row not in self._asked:
            objective, content = step.run.model.objective, step.task.train[row]
            self._asked[row] = tuple(objective.questions([content, shown(content, self.template)], n_tokens))
        return self._asked[row]

    def _distances(self, step: Step, rows: list[int]) -> torch.Tensor:
        """Return how far the student is from the teacher on an answer that it draws to each row: [n_rows], nats."""
        run, device = step.run, step.run.accelerator.device
        network, objective = run.model.network, run.model.objective
        n_tokens = self.max_new_tokens or step.run.model.objective.answer_room(step.task)
        prompts, with_answer = zip(*(self._prompt_ids(step, row, n_tokens) for row in rows), strict=True)
        seeds = [generator_for(run.seed, "sdft", run.position, step.index, row) for row in rows]
        uniforms = torch.stack([torch.rand(n_tokens, generator=seed) for seed in seeds])
        with torch.no_grad(), run.model.evaluating():
            answers = draw_answers(network, objective, prompts, uniforms, device)
        follow(device, self.teacher_)
        weights = {name: tensor.to(step.params[name].dtype) for name, tensor in self.teacher_.items()}
        with as_teacher(run, weights):
            teacher = objective.forward(network, to_device(answered(objective, with_answer, answers), device))
        student = objective.forward(network, to_device(answered(objective, prompts, answers), device))
        log_p = F.log_softmax(student.logits.float(), dim=-1)
        log_q = F.log_softmax(teacher.logits.float(), dim=-1)
        per_token = divergences(log_p, log_q) if self.divergence == "reverse" else divergences(log_q, log_p)
        return mean_per_row(per_token, student.owners, len(rows))

"""Learning without forgetting: on the new task's inputs, keep answering as the model did before it."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from everlearn.errors import check_number
from everlearn.functional.distill import distillation_loss
from everlearn.registry import register
from everlearn.strategy import Strategy, learned
from everlearn.types import Step, Task


@register("strategy", "lwf")
@dataclass
class LwF(Strategy):
    """Distil the model of before the task into the present one, on the new data: strength * T^2 * KL(before || now).

    The teacher is the same backbone with the trainable weights of before: no second model. For language models it is
    compared at the positions of the completion; for classifiers, earlier tasks' heads are (or the earlier columns of a
    shared head).

    Args:
        strength: weight of the distillation beside the task's loss.
        temperature: T; higher compares the less likely answers too.

    Cost: one forward pass more per batch from the second task on; keeps one copy of the trainable weights.

    Source: Li & Hoiem 2016, arXiv 1606.09282, eq. 2 and 3. Departs: KL in place of cross-entropy (the same gradient),
    T^2 as in Hinton et al. 2015, no warm-up of the new head.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    strength: float = 1.0
    temperature: float = 2.0

    teacher_: dict = learned(dict)  # trainable weights before the task

    wants_past_logits = True
    neutral: ClassVar[dict] = {"strength": 0.0}

    def __post_init__(self) -> None:
        check_number("lwf.strength", self.strength, low=0)
        check_number("lwf.temperature", self.temperature, above=0)

    def begin_task(self, run, task: Task) -> None:
        self.teacher_ = {}
        if run.past_tasks() and self.strength > 0:
            self.teacher_ = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}

    def penalty(self, step: Step) -> torch.Tensor | None:
        if not self.teacher_:
            return None
        model, past = step.run.model, step.run.past_tasks()
        precision = torch.get_autocast_dtype(step.run.accelerator.device.type)
        enabled = torch.is_autocast_enabled(step.run.accelerator.device.type)
        # autocast keeps cast copies of the weights by name, so the teacher's pass must not use that cache
        with (
            torch.no_grad(),
            model.evaluating(),
            model.adapters.using(self.teacher_),
            torch.autocast(step.run.accelerator.device.type, precision, enabled=enabled, cache_enabled=False),
        ):
            before = model.objective.forward(model.network, step.batch, past).past
        losses = [distillation_loss(b, n, self.temperature) for b, n in zip(before, step.outputs.past, strict=True)]
        return self.strength * torch.stack(losses).sum()

    def end_task(self, run, task: Task) -> None:
        self.teacher_ = {}

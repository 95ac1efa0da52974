"""L2: hold the weights near those of the last task."""

from dataclasses import dataclass
from typing import ClassVar

from everlearn import Strategy, register
from everlearn.errors import check_number
from everlearn.functional.quadratic import add_anchored_gradients
from everlearn.models.lora import hold_new_lora
from everlearn.strategy import learned


@register("strategy", "l2")
@dataclass
class L2(Strategy):
    """Add the gradient of 1/2 * strength * |w - w_last|^2, the same pull on every weight.

    Of a LoRA begun for the task beside frozen ones, w is the whole matrix that they are added to.

    Args:
        strength: of the pull.

    Cost: one copy of the trainable weights. Source: Kirkpatrick et al. 2017, arXiv 1612.00796, the baseline "L2".
    Reproduces: not verified; our results stand in METHODS.md.
    """

    strength: float = 1.0

    anchor_: dict = learned(dict)  # a name that ends in _ is saved, restored and counted

    protects: ClassVar[bool] = True  # a method that isolates tasks leaves it nothing to do
    neutral: ClassVar[dict] = {"strength": 0.0}  # here it must equal plain training, bit for bit

    def __post_init__(self):
        check_number("l2.strength", self.strength, low=0)

    def begin_task(self, run, task):
        if run.learned_without(self) and self.anchor_:  # what others learned since is not to be undone
            self.end_task(run, task)

    def edit_grads(self, step):
        add_anchored_gradients(step.params, self.anchor_, self.strength)
        hold_new_lora(step, self.anchor_, self.strength)

    def end_task(self, run, task):
        self.anchor_ = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}

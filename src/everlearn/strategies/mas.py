"""Memory aware synapses: weights that the model's answers are sensitive to are held, whatever the right answer is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import check_number
from everlearn.functional.per_example import Batch, add_row_gradients, linear_layers
from everlearn.functional.quadratic import add_anchored_gradients, follow
from everlearn.learners.loader import row_batches
from everlearn.models.lora import NOT_BESIDE_NEW_LORAS
from everlearn.models.objectives import is_hidden, to_device
from everlearn.registry import register
from everlearn.seeds import generator_for
from everlearn.strategy import Strategy, learned
from everlearn.streams.sampling import draw_rows
from everlearn.types import Outputs, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run


def squared_norm(outputs: Outputs, centred: bool = False) -> torch.Tensor:
    """Return the sum of the squares of all logits that may be answered; `centred`: less their mean in each line."""
    hidden = is_hidden(outputs.logits)
    logits = outputs.logits.float().masked_fill(hidden, 0.0)
    if centred:
        logits = (logits - logits.sum(-1, keepdim=True) / (~hidden).sum(-1, keepdim=True)).masked_fill(hidden, 0.0)
    return logits.square().sum()


@register("strategy", "mas")
@dataclass
class MAS(Strategy):
    """Penalise 1/2 * strength * sum_i F_i (w_i - w*_i)^2, F the sum over tasks of mean_n |d ||f(x_n)||^2 / d w_i|.

    f(x_n) are the logits that the row may answer: of a classifier, its task's classes; of a language model, the whole
    vocabulary at each position of the completion, whose squares are summed ("per sequence"). w*: the last weights.

    Args:
        strength: twice the paper's lambda, for the factor 1/2 that all quadratic penalties here have.
        centred: subtract the mean logit of each position first. Softmax ignores a shift of all logits, which can make
            up most of the norm over a large vocabulary. Not meant for regression.
        n_examples: rows of the task that F is taken over, at most; null takes all.
        batch_size: rows at once while it is computed; the result doesn't depend on it.

    Cost: keeps two float32 copies of the trainable weights; after each task about one pass over `n_examples` rows,
    row by row where other parameters than those of linear layers are trained.

    Source: Aljundi et al. 2018, arXiv 1711.09601, eq. 2 to 4 and the squared norm of section 4.1. Departs: no; the
    absolute value is taken per example, never of a batch's mean.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    strength: float = 1.0
    centred: bool = False
    n_examples: int | None = 1000
    batch_size: int = 32

    precision_: dict = learned(dict)  # F
    anchor_: dict = learned(dict)  # weights after the last task

    protects: ClassVar[bool] = True
    conflicts: ClassVar[dict[str, str]] = NOT_BESIDE_NEW_LORAS
    neutral: ClassVar[dict] = {"strength": 0.0}

    def __post_init__(self) -> None:
        check_number("mas.strength", self.strength, low=0)
        check_number("mas.batch_size", self.batch_size, low=1)
        if self.n_examples is not None:
            check_number("mas.n_examples", self.n_examples, low=1)

    def begin_task(self, run: "Run", task: Task) -> None:
        if run.learned_without(self) and self.anchor_:  # what others learned since is not to be undone
            self._anchor(run)

    def edit_grads(self, step: Step) -> None:
        add_anchored_gradients(step.params, self.anchor_, self.strength, self.precision_)

    def end_task(self, run: "Run", task: Task) -> None:
        follow(run.accelerator.device, self.precision_)
        for name, importance in self.estimate(run, task).items():
            self.precision_[name] = self.precision_[name] + importance if name in self.precision_ else importance
        self._anchor(run)

    def _anchor(self, run: "Run") -> None:
        weights = run.model.adapters.trainable()
        self.anchor_ = {name: p.detach().to(torch.float32, copy=True) for name, p in weights.items()}

    def estimate(self, run: "Run", task: Task) -> dict[str, torch.Tensor]:
        """Return the mean sensitivity over the task's own training rows: {parameter name: tensor of its shape}."""
        generator = generator_for(run.seed, "mas", run.position, task.name)
        model, rows = run.model, draw_rows(task.train, self.n_examples, generator)
        if not len(rows):
            return {}
        n_drawn = len(rows)
        parameters = model.adapters.trainable()
        layers = linear_layers(model.network, parameters)
        sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}

        def scalars(batch: Batch, rows: list[int]) -> list[torch.Tensor]:
            return [squared_norm(model.objective.forward(model.network, batch), self.centred)]

        shared = run.processes.share
        with model.evaluating():
            for _, batch in row_batches(model.objective, rows, task, self.batch_size, **shared):
                on_device = to_device(batch, run.accelerator.device)
                add_row_gradients(parameters, layers, on_device, scalars, 1, sums)
        run.processes.all_reduce(list(sums.values()))
        return {name: total / n_drawn for name, total in sums.items()}

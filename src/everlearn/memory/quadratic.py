"""What is kept of earlier tasks as a quadratic around their weights, as curved as the Fisher information says."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.functional import kfac
from everlearn.functional.fisher import KINDS, sum_of_squared_gradients
from everlearn.functional.quadratic import add_quadratic_gradients, follow
from everlearn.learners.loader import row_batches
from everlearn.models.lora import NOT_BESIDE_NEW_LORAS
from everlearn.models.objectives import Batch, to_device
from everlearn.seeds import generator_for
from everlearn.strategy import Strategy, learned
from everlearn.streams.sampling import draw_rows
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run


@dataclass
class FisherMemory(Strategy):
    """Adds the gradient of 1/2 * strength * (w - w*)^T F (w - w*) to each step; the methods say how F comes about."""

    strength: float = 100.0
    fisher: str = "sampled"
    mode: str = "separate"
    decay: float = 1.0
    batch_size: int = 32

    precision_: dict = learned(dict)  # sum over tasks of F
    pull_: dict = learned(dict)  # sum over tasks of F w*
    factors_: list = learned(list)  # kfac: F of each task in Kronecker factors
    factors_pull_: dict = learned(dict)  # kfac: sum over tasks of F w*, a matrix for each layer

    protects: ClassVar[bool] = True
    conflicts: ClassVar[dict[str, str]] = NOT_BESIDE_NEW_LORAS
    neutral: ClassVar[dict] = {"strength": 0.0}

    def __post_init__(self) -> None:
        check_number(f"{self.name}.strength", self.strength, low=0)
        check_choice(f"{self.name}.fisher", self.fisher, (*KINDS, "kfac"))
        check_choice(f"{self.name}.mode", self.mode, ("separate", "online"))
        check_number(f"{self.name}.decay", self.decay, low=0, high=1)
        check_number(f"{self.name}.batch_size", self.batch_size, low=1)
        if self.fisher == "kfac":
            kfac.check_installed(f"{self.name}.fisher")

    @property
    def most_rows(self) -> int | None:
        """How many rows of a task the Fisher is taken over, at most; None: all."""
        raise NotImplementedError

    def begin_task(self, run: "Run", task: Task) -> None:
        if self.fisher == "kfac":
            where = f"{self.name}.fisher"
            if any(strategy.name == "grow" for strategy in run.strategies):
                way_out = "Use fisher: sampled beside grow"
                raise ConfigError(describe(where, "its factors can't follow weights that grow", "kfac", way_out))
            kfac.check_layers(where, run.model.network, run.model.adapters.trainable())

    def edit_grads(self, step: Step) -> None:
        if self.strength == 0 or not (self.precision_ or self.factors_):
            return
        self._follow(next(iter(step.params.values())).device)
        kfac.add_kronecker_gradients(step.params, self.factors_, self.factors_pull_, self.strength)
        held = [name for name, p in step.params.items() if name in self.precision_ and p.grad is not None]
        if not held:
            return
        with torch.no_grad():
            add_quadratic_gradients(
                [step.params[name] for name in held],
                [self.precision_[name] for name in held],
                [self.pull_[name] for name in held],
                self.strength,
            )

    def _follow(self, device: torch.device) -> None:
        factors = (factor for task in self.factors_ for factor in task.values())
        follow(device, self.precision_, self.pull_, self.factors_pull_, *factors)

    def end_task(self, run: "Run", task: Task) -> None:
        self._follow(run.accelerator.device)
        anchors = {name: p.detach().float() for name, p in run.model.adapters.trainable().items()}
        if self.fisher == "kfac":
            self._keep_factors(self.estimate_factors(run, task), anchors)
            return
        for name, importance in self.estimate(run, task).items():
            earlier = self.precision_.get(name, torch.zeros_like(importance))
            if self.mode == "online":
                self.precision_[name] = self.decay * earlier + importance
                self.pull_[name] = self.precision_[name] * anchors[name]
            else:
                self.precision_[name] = earlier + importance
                self.pull_[name] = self.pull_.get(name, torch.zeros_like(importance)) + importance * anchors[name]

    def _keep_factors(self, factors: kfac.Factors, anchors: dict[str, torch.Tensor]) -> None:
        if self.mode == "online":
            for factor in (factor for task in self.factors_ for factor in task.values()):
                factor["gradients"] *= self.decay
            self.factors_pull_ = {}
        self.factors_.append(factors)
        for task in self.factors_ if self.mode == "online" else [factors]:
            for names, product in kfac.curvature_product(task, anchors).items():
                earlier = self.factors_pull_.get(names)
                self.factors_pull_[names] = product if earlier is None else earlier + product

    def estimate(self, run: "Run", task: Task) -> dict[str, torch.Tensor]:
        """Return the diagonal of the Fisher on the task's own training rows: {parameter name: tensor of its shape}."""
        batches, generator = self._batches(run, task)
        with run.model.evaluating():
            sums, n = sum_of_squared_gradients(
                run.model.network,
                run.model.adapters.trainable(),
                batches,
                lambda batch: run.model.objective.forward(run.model.network, batch),
                self.fisher,
                generator,
                **run.processes.share,
            )
        run.processes.all_reduce(list(sums.values()))
        n = run.processes.sum(n)
        return {name: total / n for name, total in sums.items()} if n else {}

    def estimate_factors(self, run: "Run", task: Task) -> kfac.Factors:
        """Return the Fisher on the task's own training rows in Kronecker factors, of the layers that it used."""
        batches, generator = self._batches(run, task)
        with run.model.evaluating():
            factors, n = kfac.kronecker_factors(
                run.model.network,
                run.model.adapters.trainable(),
                batches,
                lambda batch: run.model.objective.forward(run.model.network, batch),
                generator,
                **run.processes.share,
            )
        run.processes.all_reduce([tensor for factor in factors.values() for tensor in factor.values()])
        n = run.processes.sum(n)
        used = {names: factor for names, factor in factors.items() if factor["gradients"].any()}
        return {names: {side: total / n for side, total in factor.items()} for names, factor in used.items()}

    def _batches(self, run: "Run", task: Task) -> tuple[Iterator[Batch], torch.Generator]:
        """Return batches of the rows that the Fisher is taken over, and the generator that chose them."""
        generator = generator_for(run.seed, "ewc", run.position, task.name)  # of every method: the same rows
        rows = draw_rows(task.train, self.most_rows, generator)
        if not len(rows):
            return iter(()), generator
        batches = row_batches(run.model.objective, rows, task, self.batch_size)
        return (to_device(batch, run.accelerator.device) for _, batch in batches), generator

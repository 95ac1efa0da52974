"""The meta-learner from Python: learn how to learn from some tasks, then learn another in a few steps."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from everlearn.config import from_mapping
from everlearn.errors import ConfigError, StreamError, TrainingError, describe
from everlearn.evaluation.score import score_task
from everlearn.functional.meta import Weights, adapt, maml_gradient, mer_weights, reptile_gradient
from everlearn.learners.devices import start_accelerator
from everlearn.learners.meta.config import MetaConfig
from everlearn.learners.meta.episodes import (
    EncodedTask,
    Episode,
    Episodes,
    ReplayedStream,
    are_alike,
    episodes_of,
    inner_batches,
    stacked,
)
from everlearn.learners.meta.parts import adapted_names, check_model
from everlearn.listener import Listener
from everlearn.models.load import Model, ModelConfig, load_model
from everlearn.models.objectives import Batch, mean_loss, to_device
from everlearn.seeds import generator_for, seed_all, seed_for, seeded
from everlearn.types import Score, Stream, Task


class MetaLearner:
    """Learns weights from which a few gradient steps go far.

    For each outer step: draw episodes; adapt to each by `adaptation_steps` gradient steps of `inner_lr`; move the
    weights that all start from. MAML, OML and ANML follow the gradient of the loss after adaptation, Reptile the mean
    of the adapted weights, MER the algorithm of its paper.

    Args:
        model: `pocket`, `smollm2`, a folder, a GGUF file, a hub id, a ModelConfig or its mapping: a causal LM, or a
            classifier with one head for all tasks (head: shared), with LoRA or all its weights; or a plain
            `nn.Module`, trained in place.
        inner_lr, outer_lr, adaptation_steps, algorithm, options: see `MetaConfig`, whose other fields `options` gives.
        seed: of adapters and of which rows are drawn.
        device: auto, cpu or cuda.

    Raises:
        ConfigError: if a setting is unknown, out of range, or means nothing to the algorithm.

    Departs: MER's present row stands at a place drawn at random in each batch. OML and ANML don't reset the output
        weights of a class before it is learned.
    """

    def __init__(
        self,
        model: str | nn.Module | ModelConfig | Mapping[str, Any] = "pocket",
        inner_lr: float = 0.01,
        outer_lr: float = 0.001,
        adaptation_steps: int = 5,
        *,
        algorithm: str = "maml",
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "auto",
        listener: Listener | None = None,
    ):
        named = {"algorithm": algorithm, "inner_lr": inner_lr, "outer_lr": outer_lr}
        named["adaptation_steps"] = adaptation_steps
        self.config: MetaConfig = from_mapping(MetaConfig, {**named, **(options or {})}, "learner")
        self.seed = seed
        self.loss = math.nan  # of the last outer step
        self.n_steps = 0  # outer steps taken
        self._model_config = _model_config(model)
        self._accelerator = start_accelerator(device=device)
        self._listener = listener or Listener()
        self._model: Model | None = None
        self._learned_from: dict[str, Task] = {}
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def model(self) -> Model:
        """The model, with the weights that adaptation starts from."""
        if self._model is None:
            raise ConfigError(describe("MetaLearner", "knows no task yet", None, "Call fit or prepare first"))
        return self._model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._accelerator.device

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Load the model that fits the tasks, and make room in its outputs for their labels; `fit` does it too.

        Name the tasks that will only be adapted to as well, where a plain module is sized by the data.

        Raises:
            ModelError: if the model can't be meta-learned.
        """
        if self._model is None:
            model = self._load(tasks)
            check_model(model)
            model.network.to(self.device)
            self._model = model
        for task in tasks:
            if task.labels and task.name not in self._model.adapters.task_labels:
                self._model.adapters.do("labels", task=task.name, labels=list(task.labels), seed=self.seed)
        self._follow_weights()

    def fit(
        self,
        tasks: Sequence[Task] | Stream | Episodes,
        n_steps: int | None = None,
        after_step: Callable[["MetaLearner"], None] | None = None,
    ) -> list[float]:
        """Take `n_steps` outer steps; return the loss of each: after adaptation (MER: of the present row, before).

        Args:
            tasks: what to learn from: tasks, a stream, or a source of episodes. MER learns their rows once, in the
                order of the tasks, after those of the tasks that earlier calls named.
            n_steps: MER may have None: as many as there are rows left.
            after_step: called after each step, to save `state()`, say. What it raises ends the training.

        Raises:
            StreamError: if a task has too few rows. TrainingError: if the loss is not finite.
        """
        source = self._source(tasks)
        if n_steps is None:
            if not isinstance(source, ReplayedStream):
                raise ConfigError(describe("fit", "has no number of steps", n_steps, "Say how many; only MER knows"))
            n_steps = len(source) - self.n_steps
        losses = []
        with self.training():
            for step in range(self.n_steps, self.n_steps + n_steps):
                seed_all(seed_for(self.seed, "outer step", step))  # dropout: the same after a resume
                losses.append(self._take_step(source.at(step)))
                self.n_steps = step + 1
                self.loss = losses[-1]
                self._listener.step(self.n_steps, self.loss)
                if after_step is not None:
                    after_step(self)
        return losses

    @contextmanager
    def adapted(
        self, task: Task, n_steps: int | None = None, *, n_rows: int | None = None, draw: int = 0
    ) -> Iterator[Model]:
        """Let the model be what a few gradient steps on a task make of it, until the block ends; then it is as before.

        Args:
            n_steps: of gradient descent, by default `adaptation_steps`; 0 for none.
            n_rows: of the task's training rows, drawn by the seed; by default `n_support`, in batches as in training.
            draw: another number draws other rows.
        """
        self.prepare([task])
        n_steps = self.config.adaptation_steps if n_steps is None else n_steps
        batches = self.support_of(task, n_steps, n_rows, draw)
        with self.training(task):
            moving = adapted_names(self.model, self.config)
            weights = adapt(self._loss, self._weights(), batches, self.config.inner_lr, moving)
        with self.model.adapters.using(weights):
            yield self.model

    def support_of(self, task: Task, n_steps: int, n_rows: int | None = None, draw: int = 0) -> tuple[Batch, ...]:
        """Return the batches that `adapted` learns a task from."""
        encoded = EncodedTask.of(task, self.model.objective)
        n_rows = min(n_rows or self.config.n_support, len(encoded))
        rows = encoded.draw(n_rows, task.name, generator_for(self.seed, "support", task.name, draw))
        batches = inner_batches(encoded, rows, n_steps, min(self.config.inner_rows, n_rows))
        return tuple(to_device(batch, self.device) for batch in batches)

    def score(self, task: Task, n_steps: int | None = None, *, n_rows: int | None = None) -> Score:
        """Return the score on a task's evaluation rows after a few steps on it; the weights stay as they are."""
        with self.adapted(task, n_steps, n_rows=n_rows) as model:
            return self.score_as_is(model, task)

    def score_as_is(self, model: Model, task: Task, batch_size: int = 64) -> Score:
        """Return the score of a model on a task's evaluation rows, with the weights that it has now."""
        return score_task(model, task, "evaluation", self._accelerator, batch_size)

    def state(self) -> dict[str, Any]:
        """Return all that a learner made in the same way needs to go on, bit for bit: tensors and JSON."""
        return {
            "n_steps": self.n_steps,
            "structure": self.model.adapters.log,
            "weights": dict(self.model.adapters.tensors()),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any], tasks: Sequence[Task]) -> None:
        """Restore what `state` returned. `tasks`: those that were learned from, in their order."""
        self.prepare(tasks)
        self._learned_from.update({task.name: task for task in tasks})
        self.model.adapters.replay(list(state["structure"]))
        self._follow_weights()
        self.model.adapters.load_tensors(dict(state["weights"]))
        self._optimizer.load_state_dict(state["optimizer"])
        self.n_steps = state["n_steps"]

    def _source(self, tasks: Sequence[Task] | Stream | Episodes) -> Episodes:
        if isinstance(tasks, Stream):
            tasks = tasks.tasks
        if not isinstance(tasks, Sequence):
            self.prepare(tasks.tasks)
            return tasks
        if not tasks:
            raise StreamError(describe("fit", "has no task", tasks, "Name at least one"))
        self.prepare(tasks)
        self._learned_from.update({task.name: task for task in tasks})
        chosen = self._learned_from.values() if self.config.algorithm == "mer" else tasks
        return episodes_of(list(chosen), self.model.objective, self.config, self.seed)

    def _take_step(self, episodes: Sequence[Episode]) -> float:
        episodes = [episode.to(self.device) for episode in episodes]
        weights, parameters = self._weights(), self.model.adapters.trainable()
        if self.config.algorithm == "mer":
            value = self._loss(weights, episodes[0].query)
            batches = [episode.support for episode in episodes]
            rates = (self.config.inner_lr, self.config.within_lr, self.config.outer_lr)
            moved = mer_weights(self._loss, weights, batches, *rates)
            self._check(value, moved)
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(moved[name])
            return value.item()
        gradients, value = self._mean_gradient(weights, episodes)
        self._check(value, gradients)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(list(parameters.values()), self.config.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return value.item()

    def _mean_gradient(self, weights: Weights, episodes: Sequence[Episode]) -> tuple[Weights, torch.Tensor]:
        """Return the outer gradient and the loss after adaptation, means over episodes."""
        gradient_of, n = self._gradient_of(weights), len(episodes)
        if n > 1 and self.config.vectorize and self.model.kind == "tensor" and are_alike(episodes):
            together = stacked(episodes)
            gradients, values = vmap(gradient_of, randomness="different")(together.support, together.query)
            return {name: tensor.mean(0) for name, tensor in gradients.items()}, values.mean()
        total, value = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}, 0.0
        for episode in episodes:
            gradients, loss = gradient_of(episode.support, episode.query)
            value = value + loss.detach() / n
            for name, gradient in gradients.items():
                total[name].add_(gradient, alpha=1 / n)
        return total, value

    def _gradient_of(self, weights: Weights) -> Callable[[Sequence[Batch], Batch], tuple[Weights, torch.Tensor]]:
        config, rate = self.config, self.config.inner_lr
        if config.algorithm == "reptile":

            def reptile(support: Sequence[Batch], query: Batch) -> tuple[Weights, torch.Tensor]:
                gradients = reptile_gradient(self._loss, weights, support, rate)
                return gradients, self._loss({name: weights[name] - gradients[name] for name in weights}, query)

            return reptile
        options = {"adapted": adapted_names(self.model, self.config), "first_order": config.first_order}
        if config.algorithm == "joint":  # whatever the source of episodes has for an inner loop
            return lambda support, query: maml_gradient(self._loss, weights, (), query, rate, **options)
        return lambda support, query: maml_gradient(self._loss, weights, support, query, rate, **options)

    def _loss(self, weights: Weights, batch: Batch) -> torch.Tensor:
        """The mean loss of a batch's targets, as a function of the trainable weights."""
        loss = _Loss(self.model)
        return functional_call(loss, {f"network.{name}": tensor for name, tensor in weights.items()}, (batch,))

    def _weights(self) -> Weights:
        return {name: p.detach() for name, p in self.model.adapters.trainable().items()}

    def _load(self, tasks: Sequence[Task]) -> Model:
        """Return the model that fits the tasks."""
        return load_model(self._model_config, tasks, self.seed, self.device.type)

    def _follow_weights(self) -> None:
        """Let the outer optimizer move the weights of labels that came, beside those that it has."""
        if self._optimizer is None:
            self._optimizer = self._outer_optimizer()
        moved = self._optimizer.param_groups[0]["params"]
        known = set(map(id, moved))
        moved.extend(p for p in self.model.adapters.trainable().values() if id(p) not in known)

    def _outer_optimizer(self) -> torch.optim.Optimizer:
        name = self.config.outer_optimizer or ("sgd" if self.config.algorithm == "reptile" else "adam")
        parameters = list(self.model.adapters.trainable().values())
        return {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[name](parameters, lr=self.config.outer_lr)

    @contextmanager
    def training(self, task: Task | None = None) -> Iterator[None]:
        """Put the network into training mode; its flags and the random generators come back afterwards.

        Args:
            task: what dropout is seeded for.
        """
        network = self.model.network
        flags = [(module, module.training) for module in network.modules()]
        # the fused attention has no second derivative
        by_gradient = self.config.algorithm in ("maml", "oml", "anml")
        twice = self.model.kind != "tensor" and by_gradient and not self.config.first_order
        self.model.train()
        try:
            seed = seed_for(self.seed, "adapt", task.name if task else None)
            with seeded(seed), sdpa_kernel(SDPBackend.MATH) if twice else nullcontext():
                yield
        finally:
            for module, flag in flags:
                module.training = flag

    def _check(self, value: torch.Tensor, tensors: Weights) -> None:
        """Raise TrainingError if the loss, or anything of the gradients or new weights, is not finite."""
        size = sum(torch._foreach_norm(list(tensors.values())))
        if not torch.isfinite(value + size):
            way_out = "Lower learner.inner_lr or learner.outer_lr, or set learner.clip; the weights of before are kept"
            got = {"loss": value.item(), "norm": size.item()}
            raise TrainingError(describe(f"outer step {self.n_steps + 1}", "the step is not finite", got, way_out))


class _Loss(nn.Module):
    """The mean loss of a batch's targets as a module, whose weights `functional_call` can exchange."""

    def __init__(self, model: Model):
        super().__init__()
        self.network = model.network
        self._objective = model.objective

    def forward(self, batch: Batch) -> torch.Tensor:
        return mean_loss(self._objective.forward(self.network, batch))


def _model_config(model: str | nn.Module | ModelConfig | Mapping[str, Any]) -> ModelConfig | nn.Module:
    if isinstance(model, str):
        return ModelConfig(model)
    return from_mapping(ModelConfig, model, "model") if isinstance(model, Mapping) else model

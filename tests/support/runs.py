"""Runs over the tiny tasks, for each kind of model that a method must work with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from everlearn.config import CheckpointConfig, build_strategies
from everlearn.learners.devices import start_accelerator
from everlearn.learners.loader import row_batches
from everlearn.learners.sft import SupervisedLearner
from everlearn.listener import Listener
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.saving import Saving
from everlearn.strategy import Strategy
from everlearn.types import Cost, Task
from everlearn.way import Run
from support.tasks import (
    classify_task,
    contrary_task,
    multilabel_task,
    preference_task,
    prompt_task,
    score_task,
    tag_task,
    tensor_task,
)

KINDS = ("causal_lora", "causal_full", "classify", "plain")
TRAITS = {  # of each kind's model, see `Model.traits`; checked in tests/contract/test_class.py
    "causal_lora": ("causal", "lora"),
    "causal_full": ("causal", "full"),
    "classify": ("classify", "lora", "fresh", "task_head"),
    "preference": ("causal", "lora", "preferences"),
    "multilabel": ("classify", "lora", "fresh", "task_head", "several_labels"),
    "score": ("classify", "lora", "fresh", "task_head", "numbers"),
    "plain": ("tensor", "full", "task_head"),
    "domain": ("tensor", "full", "task_head"),
    "contrary_lora": ("causal", "lora"),
    "contrary_full": ("causal", "full"),
}


class Stopped(Exception):
    """Raised by `StopAfter`."""


@dataclass
class StopAfter(Listener):
    """Stops a run, as a crash would, when so many optimizer steps have been taken, before the last one is saved."""

    n_steps: int
    taken: list[float] = field(default_factory=list)

    def step(self, done: int, loss: float) -> None:
        self.taken.append(loss)
        if len(self.taken) >= self.n_steps:
            raise Stopped


@dataclass(frozen=True)
class Bench:
    """One kind of model and its two tasks."""

    kind: str
    config: ModelConfig
    tasks: tuple[Task, ...]

    def run(
        self,
        strategies: Sequence[str | dict[str, Any] | Strategy] = (),
        *,
        folder: Path | None = None,
        listener: Listener | None = None,
        every_steps: int | None = None,
        seed: int = 0,
        **learner: Any,
    ) -> Run:
        """Return a new run with these strategies and options of the learner."""
        options = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "early_stopping": False, **learner}
        return Run(
            model=load_model(self.config, self.tasks, seed),
            learner=SupervisedLearner(**options),
            strategies=build_strategies(list(strategies)),
            accelerator=start_accelerator(device="cpu"),
            seed=seed,
            tasks={task.name: task for task in self.tasks},
            saving=Saving(folder, CheckpointConfig(every_s=None, every_steps=every_steps)),
            listener=listener or Listener(),
        )

    def learn(self, run: Run, upto: int | None = None) -> Run:
        """Learn the tasks from the first, or from where the run's newest checkpoint stands, and return the run."""
        training, begin = None, 0
        if run.saving.folder is not None and (run.saving.folder / "checkpoints").exists():
            training = run.restore()
            begin = run.position if training is not None else run.position + 1
        for position in range(begin, len(self.tasks) if upto is None else upto):
            run.position = position
            run.learn(self.tasks[position], training["learner"] if training else None)
            training = None
            run.checkpoint()
        return run


def make_bench(kind: str, llama: Path, bert: Path, head: str = "task", dropout: float = 0.0) -> Bench:
    """Return the bench of one of KINDS, or of another in `makers`; `domain`, `contrary`: tasks in each other's way.

    Args:
        dropout: of the LoRA, or of the plain module.
    """
    lora = AdapterConfig("lora", rank=4, dropout=dropout)
    mlp = ModelConfig("mlp", head=head, options={"hidden": [16], "dropout": dropout})
    makers: dict[str, tuple[ModelConfig, Callable[[int], Task]]] = {
        "causal_lora": (ModelConfig(str(llama), lora), prompt_task),
        "causal_full": (ModelConfig(str(llama), AdapterConfig("full")), prompt_task),
        "classify": (ModelConfig(str(bert), lora, head=head), classify_task),
        "preference": (ModelConfig(str(llama), lora), preference_task),
        "words": (ModelConfig(str(llama), lora, head="words"), classify_task),
        "multilabel": (ModelConfig(str(bert), lora, head=head), multilabel_task),
        "score": (ModelConfig(str(bert), lora, head=head), score_task),
        "tag": (ModelConfig(str(bert), lora, head=head), tag_task),
        "plain": (mlp, tensor_task),
        "domain": (mlp, lambda number: replace(tensor_task(number), labels=("no", "yes"))),
        "contrary_lora": (ModelConfig(str(llama), lora), contrary_task),
        "contrary_full": (ModelConfig(str(llama), AdapterConfig("full")), contrary_task),
    }
    config, make_task = makers[kind]
    return Bench(kind, config, tuple(make_task(number) for number in range(2)))


def suits(cls: type[Strategy], kind: str) -> bool:
    """Tell whether a method can work with this kind of model."""
    return not any(set(unsuited.split("+")) <= set(TRAITS[kind]) for unsuited in cls.unsuited)


def answers(run: Run, task: Task) -> torch.Tensor:
    """Return the logits on a task's evaluation rows, with the model made ready for it as for scoring."""
    objective, network = run.model.objective, run.model.network
    with run.ready_for(task), torch.no_grad(), run.model.evaluating():
        batches = row_batches(objective, task.evaluation, task, 4)
        return torch.cat([objective.forward(network, batch).logits for _, batch in batches])


def learn_at(run: Run, task: Task, position: int) -> Cost:
    """Let a run learn a task as number `position`, whether it knew of it or not."""
    run.position, run.tasks[task.name] = position, task
    return run.learn(task)


def first_task_loss(bench: Bench, strategies: Sequence[str | dict[str, Any]], **learner: Any) -> float:
    """Return the loss that is left on the first task's rows when all tasks are learned."""
    run, task = bench.learn(bench.run(strategies, **learner)), bench.tasks[0]
    objective = run.model.objective
    _, batch = next(row_batches(objective, task.train, task, len(task.train)))
    outputs = objective.forward(run.model.network, batch)
    return F.cross_entropy(outputs.logits, outputs.targets).item()


def assert_unused_heads_stay(bench: Bench, strategy: str, **learner: Any) -> None:
    """Check that learning the second task leaves the first one's head as it was."""
    run = bench.learn(bench.run([strategy], **learner), upto=1)
    head = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items() if "blocks.0" in name}
    assert head
    learn_at(run, bench.tasks[1], 1)
    now = run.model.adapters.trainable()
    assert all(torch.equal(now[name], tensor) for name, tensor in head.items())


def start_lora_away_from_zero(run: Run) -> None:
    """Draw LoRA's B, which starts at zero, where A has no gradient."""
    with torch.no_grad():
        for name, p in run.model.adapters.trainable().items():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(1))


def weights(run: Run) -> dict[str, torch.Tensor]:
    """Return copies of all that the run has learned to now."""
    return {name: tensor.detach().clone() for name, tensor in run.model.adapters.tensors().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float = 0.0) -> None:
    """Check that two sets of weights are equal, bit for bit where the tolerance is 0."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        if tolerance == 0:
            assert torch.equal(tensor, second[name]), name
        else:
            torch.testing.assert_close(
                tensor, second[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )

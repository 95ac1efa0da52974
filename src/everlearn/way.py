"""One model on its way through tasks: who learns, what it has learned, and the hooks around a learner's loop."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from everlearn.evaluation.fitting import fit_of
from everlearn.evaluation.heads import choose_thresholds
from everlearn.evaluation.score import score_task
from everlearn.listener import Listener
from everlearn.models.adapters import Scale
from everlearn.models.causal import CausalObjective
from everlearn.models.dtypes import half_trained
from everlearn.models.load import Model
from everlearn.models.steps import in_steps
from everlearn.processes import Processes
from everlearn.saving import Saving
from everlearn.seeds import seed_for, seeded
from everlearn.shards import whole
from everlearn.strategy import Strategy, overriding
from everlearn.streams.rows import column_of
from everlearn.types import Cost, Mixture, Score, Step, Task


@dataclass
class Run:
    """One model on its way through tasks: what strategies and learners are handed.

    Attributes:
        tasks: {name: task} of all tasks known, in the order of the stream.
        learned: names of the tasks learned, in order; a repeated one stands twice.
        position: number of the step of the schedule, from 0.
        current: name of the task being learned.
        took_part: {strategy: how many tasks had been learned when it last took part in learning one}.
        sharded: whether each process is to hold but a part of the weights.
        processes: what this process does together with others.
        saving: when and where it is saved; the base keeps nothing.
        memory: where strategies lay large memories down, in files named by their hash; by default saving.folder/memory.
        library: one of experts that outlives the run, and that others' states refer to; None: the run has its own.
        apart: tasks learned that others answer: the weights that learn the present one hold nothing of them.
    """

    model: Model
    learner: Any
    strategies: list[Strategy]
    accelerator: Accelerator
    seed: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    learned: list[str] = field(default_factory=list)
    position: int = 0
    current: str | None = None
    saving: Saving = field(default_factory=Saving)
    memory: Path | None = None
    sharded: bool = False
    library: Path | None = None
    apart: frozenset[str] = frozenset()
    eval_batch_size: int = 64
    keep_answers: bool = True  # in scores
    listener: Listener = field(default_factory=Listener)
    took_part: dict[str, int] = field(default_factory=dict)
    dormant: dict[str, Any] = field(default_factory=dict)  # state of strategies that learned before and don't now
    notes: list[str] = field(default_factory=list)  # what the user was told
    n_logged: int = 0
    until_scored: ExitStack = field(default_factory=ExitStack)
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        self.use(self.strategies)
        self.processes = Processes(self.accelerator, self.sharded)
        if self.memory is None and self.saving.folder is not None:
            self.memory = self.saving.folder / "memory"
        if isinstance(self.model.objective, CausalObjective):
            self.model.objective.train_on = self.learner.train_on
            self.model.objective.in_steps = in_steps(self.learner.learn, self.model.objective.wraps)
        device = self.accelerator.device
        if device.type != "cpu":
            self.model.network.to(device)
        if self.sharded:
            self.model.adapters.shard(device)

    def use(self, strategies: list[Strategy]) -> None:
        """Let these strategies take part from now on.

        Raises:
            ConfigError: if one is unsuited for the model or the learner.
        """
        sharded = ("sharded",) if self.sharded else ()
        for strategy in strategies:
            strategy.check_model((*self.model.traits, *self.learner.traits, *sharded))
        self.strategies = sorted(strategies, key=lambda strategy: not strategy.encloses)

    @property
    def on_gpu(self) -> bool:
        """Whether tensors live on a GPU."""
        return self.accelerator.device.type == "cuda"

    def learn(self, task: Task, saved: dict[str, Any] | None = None) -> Cost:
        """Learn one task: the hooks around the learner's loop, as printed in `everlearn.strategy`.

        Args:
            task: what to learn; from now on one of `tasks`.
            saved: the state of the learner's loop, to go on in mid-task.
        """
        started = time.perf_counter()
        self.until_scored.close()
        self.tasks.setdefault(task.name, task)
        if isinstance(self.model.objective, CausalObjective):
            task = self.model.objective.in_examples(task)
        self.current = task.name
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        with seeded(seed_for(self.seed, self.position, task.name, self.processes.rank)):
            if saved is None:
                self.add_labels(task)
                for strategy in self.strategies:
                    strategy.adapt_model(self, task)
                for strategy in self.strategies:
                    strategy.begin_task(self, task)
            in_half = half_trained(self.model.adapters.trainable().values())
            if in_half is not None:
                self.note(in_half)
            mixture = Mixture.of(task)
            for strategy in self.strategies:
                mixture = strategy.train_data(mixture, self)
            spent_s = saved["progress"]["elapsed_s"] if saved else 0.0
            progress = self.learner.train(self, task, mixture, saved)
            self.listener.consolidating(task)
            if progress.learned is not None:
                task = replace(task, train=progress.learned)
            for strategy in reversed(self.strategies):
                strategy.end_task(self, task)
        choose_thresholds(self, task)
        self.learned.append(task.name)
        self.took_part |= {strategy.name: len(self.learned) for strategy in self.strategies}
        self.current, self.apart = None, frozenset()
        return Cost(
            train_s=time.perf_counter() - started + spent_s,
            n_steps=progress.index,
            n_tokens=int(self.processes.sum(progress.n_tokens)),
            peak_memory_bytes=self._peak_memory_bytes(),
            learning_rate=progress.learning_rate,
            batch_size=progress.batch_size,
            n_epochs=progress.epoch,
            best_epoch=progress.best_epoch or None,
            mean_loss=self.processes.sum(progress.loss_sum) / progress.index if progress.index else None,
            strategy_bytes={strategy.name: strategy.state_bytes() for strategy in self.strategies},
            strategy_facts={strategy.name: facts for strategy in self.strategies if (facts := strategy.facts())},
        )

    def score(self, task: Task, rows: str = "evaluation") -> Score:
        """Score the model on a task's `evaluation` or `validation` rows; nothing of the model's state changes."""
        self.add_labels(task)
        with seeded(seed_for(self.seed, "score", task.name, rows)), self.ready_for(task):
            self.listener.scoring(task)
            score = score_task(self.model, task, rows, self.accelerator, self.eval_batch_size)
        score = score if self.keep_answers else replace(score, answers=())
        if rows == "evaluation":
            self.listener.scored(score)
        return score

    @contextmanager
    def ready_for(self, task: Task) -> Iterator[None]:
        """Let the strategies make the model ready to answer a task; afterwards it is as it was.

        Weights that are sharded are whole meanwhile: each process answers rows of its own.
        """
        self.until_scored.close()
        with whole(self.model.network), self.until_scored:
            for strategy in overriding(self.strategies, "before_eval"):
                strategy.before_eval(self, task)
            yield

    def note(self, text: str) -> None:
        """Tell the user a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)
            if self.processes.rank == 0:
                self.listener.note(text)

    def inform(self, text: str) -> None:
        """Tell the user what was decided for them."""
        if self.processes.rank == 0:
            self.listener.inform(text)

    def inspect(self, task: Task) -> dict[str, dict[str, int]]:
        """Tell what is to be said of a task's rows, such as how many are cut; return the counts by role."""
        fit = fit_of(self.model, task)
        for sentence in (*task.notes, *fit.sentences):
            self.note(sentence)
        return fit.counts

    def add_labels(self, task: Task) -> None:
        """Make room in the model's outputs for a task's classes or its number, once; where the head is shared, also
        for classes that it didn't have before.

        Numbers are learned in standard deviations from the mean of the task's training rows.
        """
        adapters, outputs = self.model.adapters, list(task.outputs)
        known = adapters.task_labels.get(task.name, ())
        grown = adapters.head_mode == "shared" and not set(outputs) <= set(known)
        if not outputs or (known and not grown):
            return
        seed = seed_for(self.seed, "grown", len(known)) if known else self.seed
        adapters.do("labels", task=task.name, labels=outputs, seed=seed)
        if task.kind == "score" and not known:
            adapters.do("scale", task=task.name, **asdict(Scale.of(column_of(task.train, "score"))))

    def past_tasks(self) -> list[str]:
        """Return the names of the tasks learned before: the present one is among them where it is learned again.

        Meanwhile without those that are `apart` from it.
        """
        return [name for name in dict.fromkeys(self.learned) if name not in self.apart]

    def learned_without(self, strategy: Strategy) -> list[str]:
        """Return the names of the tasks learned since a strategy last took part, all where it never did.

        What it kept of the weights is older than what these tasks made of them, and must not undo it.
        """
        return self.learned[self.took_part.get(strategy.name, 0) :]

    def encoding(self, task: Task, done: int, n_rows: int) -> None:
        """Tell how many rows were encoded; stop there when a pause was asked for. What is saved lacks nothing then."""
        self.listener.encoding(task, done, n_rows)
        if self.processes.size == 1:  # several processes stop together, after a step
            self.saving.pause_if_asked()

    def after_step(self, task: Task, learner_state: Callable[[], dict[str, Any]]) -> None:
        """Save in mid-task when it is due, or when a pause was asked for; then stop."""
        self.saving.after_step(
            self.processes, lambda: self.checkpoint({"task": task.name, "learner": learner_state()})
        )  # fmt: skip

    def checkpoint(self, training: dict[str, Any] | None = None) -> None:
        """Save all that a resumed run needs. `training`: the task in progress and its learner's state."""
        self.saving.save(lambda: {**self.state(), "training": training}, self.processes)

    def restore(self) -> dict[str, Any] | None:
        """Load the newest checkpoint; return its `training`, or None between tasks."""
        state = self.saving.newest()
        self.load_state(state)
        return state["training"]

    def state(self) -> dict[str, Any]:
        """Return what was learned: structure, weights, strategies."""
        return {
            "structure": self.model.adapters.log,
            "weights": dict(self.model.adapters.tensors()),
            "strategies": {**self.dormant, **{strategy.name: strategy.state() for strategy in self.strategies}},
            "learned": list(self.learned),
            "took_part": dict(self.took_part),
            "position": self.position,
            "seed": self.seed,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned, into a run built from the same recipe."""
        self.model.adapters.replay(state["structure"])
        self.model.adapters.load_tensors(state["weights"])
        self.model.show_batches()
        self.dormant = dict(state["strategies"])
        for strategy in self.strategies:
            if strategy.name in self.dormant:
                strategy.load_state(self.dormant.pop(strategy.name))
        self.learned, self.position = list(state["learned"]), state["position"]
        # states of before don't tell: all strategies count as up to date
        self.took_part = dict(state.get("took_part", dict.fromkeys(state["strategies"], len(self.learned))))

    def log(self, losses: dict[str, float], gradient_norm: torch.Tensor | None, step: Step) -> None:
        """Send one step's numbers to the trackers."""
        if not self.accelerator.trackers:
            return
        numbers = {f"loss/{name}": value for name, value in losses.items()}
        numbers["learning_rate"] = step.learning_rate
        if gradient_norm is not None:
            numbers["gradient_norm"] = gradient_norm.item()
        self.n_logged += 1
        self.accelerator.log({f"{step.task.name}/{name}": value for name, value in numbers.items()}, step=self.n_logged)

    def _peak_memory_bytes(self) -> int:
        if self.on_gpu:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

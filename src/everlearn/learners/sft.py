"""Supervised learning of one task: from batches to `optimizer.step()`. `everlearn.strategy` prints the loop's hooks."""

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, get_scheduler

from everlearn.errors import ConfigError, TrainingError, check_choice, check_number, describe
from everlearn.learners.budget import AUTO, course_of, fitting
from everlearn.learners.devices import PRECISIONS
from everlearn.learners.gradients import SharedBuffers, all_finite, sum_over_processes
from everlearn.learners.loader import BatchPlan, EncodedMixture, load_steps, n_task_steps, plan_epoch
from everlearn.learners.rates import learning_rate_for
from everlearn.learners.stopping import Weights
from everlearn.learners.weighing import row_weights
from everlearn.models.chat import TRAIN_ON
from everlearn.models.load import Model
from everlearn.models.objectives import Batch, mean_loss, to_device
from everlearn.models.packing import check_packing, collate_packed, takes_all_in_one
from everlearn.registry import register
from everlearn.seeds import seed_for, seeded
from everlearn.shards import full, lay_out_state
from everlearn.state import rng_state, set_rng_state
from everlearn.strategy import overriding
from everlearn.types import Mixture, Outputs, Rows, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

OPTIMIZERS = ("adamw", "adam", "sgd")
OWN = ("n_tokens", "loss_sum")  # of Progress: each process counts its own
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


@dataclass
class Progress:
    """Where the training of a task stands; saved with every checkpoint."""

    epoch: int = 0
    done: int = 0  # optimizer steps done in this epoch
    index: int = 0  # optimizer steps done in this task
    n_tokens: int = 0
    loss_sum: float = 0.0  # of the steps' losses, this process's shares
    learning_rate: float = 0.0  # at its peak
    batch_size: int = 0  # the task's own rows in an optimizer step
    best_epoch: int = 0  # from 1, by the validation rows, or those held out; 0: none was judged
    best_score: float | None = None
    best_loss: float | None = None  # where the score is 0, or doesn't tell
    best_known: float = 0.0  # share of training rows that are right, where those held out can't be
    bad_epochs: int = 0  # since the best one
    stopped: bool = False
    last_from: int | None = None  # epochs done before the last `n_last`, over all rows
    n_last: int = 0
    elapsed_s: float = 0.0  # training time up to here, over all the times the run was resumed
    learned: Rows | None = None  # what strategies consolidate on, where it isn't the task's training rows


@register("learner", "sft")
@dataclass(frozen=True)
class SupervisedLearner:
    """Learn from rows with right answers.

    Args:
        epochs: passes over the task's rows, at most; auto: as many as they need (`everlearn.learners.budget`), until
            the loss on validation rows, or on a tenth of the rows that is given back for the last epochs, stops
            falling; at least 30 steps, at most `max_epochs`, and none is begun that `max_minutes` don't suffice for.
        batch_size: rows in a micro-batch, over all processes; replayed rows come on top. Where epochs is auto and rows
            are few, it is smaller, for 8 steps an epoch.
        batch_tokens: in its place, tokens in a micro-batch, padding included (rows times the longest of them), over all
            processes; replayed rows come on top. A row that is longer is a micro-batch of its own.
        accumulation: micro-batches in an optimizer step. 4 of 2 rows give the gradient of 1 of 8: targets weigh alike.
        learning_rate: at its peak, auto: by the model's kind and width, and the batch (`everlearn.learners.rates`);
            `schedule` (constant, linear or cosine to 0) follows `warmup`, a share of the steps.
        backbone_scale: learning rate of all but the output layer, as a share of `learning_rate`; a slow backbone under
            a fast head is SLCA's remedy (Zhang et al. 2023, arXiv 2303.05118).
        optimizer: adamw, adam (weight decay in the gradient) or sgd (with `momentum`).
        clip: largest gradient norm, or null.
        precision: no (the weights' own), bf16 or fp16 (mixed).
        group_by_length: whether rows of like length share a step, which saves padding; auto: where they differ by more
            than 2x (the last decile of their lengths over the first) and an epoch has 8 steps or more. Rows are sorted
            within windows of 50 steps, the steps come in random order.
        train_on: of a conversation: last, the last answer, or all, every turn of the assistant.
        early_stopping: stop when the score on the task's validation rows hasn't risen by `delta` for `patience` epochs,
            not before `min_epochs`, and go back to the weights of the best epoch, also where all epochs were run. While
            the score is 0, epochs are judged by the rows' loss. What strategies learned meanwhile is not taken back.
            Tasks without validation rows run all epochs, as do all where epochs can't exceed `patience`.
        packing: several rows in one sequence where they fit, kept apart by their positions; for language models that
            write and whose attention can do it, which is tried first. With it `group_by_length: auto` is false.
        workers: processes that prepare batches, 0 for none.
    """

    epochs: int | Literal["auto"] = 3
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float | Literal["auto"] = AUTO
    backbone_scale: float = 1.0
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    clip: float | None = 1.0
    precision: str = "no"
    gradient_checkpointing: bool = False
    group_by_length: bool | str = "auto"
    early_stopping: bool = True
    patience: int = 3
    min_epochs: int = 1
    delta: float = 0.001
    max_epochs: int = 100
    max_minutes: float = 8.0
    workers: int = 0
    train_on: str = "last"
    batch_tokens: int | None = None
    packing: bool = False

    learn: ClassVar[str] = "answer"  # of a row

    def __post_init__(self) -> None:
        check_choice("learner.optimizer", self.optimizer, OPTIMIZERS)
        check_choice("learner.schedule", self.schedule, SCHEDULES)
        check_choice("learner.precision", self.precision, PRECISIONS)
        check_choice("learner.train_on", self.train_on, TRAIN_ON)
        for name in ("epochs", "batch_size", "accumulation", "patience", "min_epochs", "max_epochs"):
            if name != "epochs" or self.epochs != AUTO:
                check_number(f"learner.{name}", getattr(self, name), low=1)
        if not isinstance(self.group_by_length, bool):
            check_choice("learner.group_by_length", self.group_by_length, ("auto",))
        if self.batch_tokens is not None:
            check_number("learner.batch_tokens", self.batch_tokens, low=1)
            if self.batch_size != SupervisedLearner.batch_size:
                way_out = "Leave one of the two out"
                raise ConfigError(
                    describe("learner.batch_size", "batch_tokens stands in its place", self.batch_size, way_out)
                )
        if self.learning_rate != AUTO:
            check_number("learner.learning_rate", self.learning_rate, above=0)
        check_number("learner.max_minutes", self.max_minutes, above=0)
        check_number("learner.backbone_scale", self.backbone_scale, low=0)
        for name, high in (("warmup", 1), ("momentum", 1), ("weight_decay", float("inf")), ("delta", float("inf"))):
            check_number(f"learner.{name}", getattr(self, name), low=0, high=high)
        for i, beta in enumerate(self.betas):
            check_number(f"learner.betas[{i}]", beta, low=0, high=1 - 1e-9)
        if self.clip is not None:
            check_number("learner.clip", self.clip, above=0)

    @property
    def traits(self) -> tuple[str, ...]:
        """What a method may be unsuited for, beside the model's traits: packing."""
        return ("packing",) if self.packing else ()

    @property
    def uses_validation(self) -> bool:
        """Whether validation rows are to be held out: early stopping is on, and can save an epoch; auto sees to it."""
        return self.epochs != AUTO and self.can_stop_early(self.epochs)

    def can_stop_early(self, n_epochs: int) -> bool:
        """Whether early stopping is on, and can save one of so many epochs."""
        return self.early_stopping and n_epochs > max(self.patience, self.min_epochs)

    @property
    def most_epochs(self) -> int:
        """The largest number of epochs."""
        return self.max_epochs if self.epochs == AUTO else self.epochs

    def train(self, run: "Run", task: Task, mixture: Mixture, saved: dict[str, Any] | None = None) -> Progress:
        """Train `run.model` on the mixture, from the start or from what `run.checkpoint` saved in mid-task."""
        with seeded(seed_for(run.seed, run.position, task.name, "rows")):  # a resumed run reads the same ones
            encoded = EncodedMixture(
                mixture, run.model.objective, partial(run.encoding, task), self._collate(run.model)
            )
        plan, seed_parts = self._plan(run, task, encoded), (run.seed, run.position, task.name)
        course = course_of(self, run, task, encoded, plan)
        n_steps = n_task_steps(encoded, plan, course.most, seed_parts)
        progress, best, started = self._begin(run, task, encoded, plan), {}, time.perf_counter()
        if saved is not None:
            own = {name: saved[name][run.processes.rank] for name in OWN if name in saved}
            progress, best = Progress(**{**vars(progress), **saved["progress"], **own}), saved.get("best", {})
            started -= progress.elapsed_s
        step = Step(run, task, run.model.adapters.trainable(), n_steps=n_steps, by_row=encoded.by_row)
        optimizer = self._optimizer(run, list(step.params.values()), progress.learning_rate)
        scheduler = get_scheduler(SCHEDULES[self.schedule], optimizer, int(self.warmup * n_steps), max(1, n_steps))
        if saved is not None:
            optimizer.load_state_dict(saved["optimizer"])
            lay_out_state(optimizer)
            scheduler.load_state_dict(saved["scheduler"])
            if run.accelerator.scaler:
                run.accelerator.scaler.load_state_dict(saved["scaler"])
        self._checkpoint_activations(run.model.network)
        run.model.train()
        hooks = Hooks.of(run)
        run.listener.training(task, n_steps, progress.index)
        if saved is None and n_steps:
            course.begin(progress, best)
        while course.goes_on(progress) and n_steps:
            steps = plan_epoch(encoded, plan, seed_parts, progress.epoch, course.held(progress))
            n_epoch_steps, steps = len(steps), steps[progress.done :]
            batches = load_steps(
                encoded, steps, **run.processes.share, workers=self.workers, pin_memory=run.on_gpu,
                seed=seed_for(*seed_parts, progress.epoch, run.processes.rank, "workers"),
            )  # fmt: skip
            if saved is not None:
                set_rng_state(saved["rng"][run.processes.rank])
                saved = None
            for addresses, micro_batches in zip(steps, batches, strict=True):
                step.index, step.learning_rate = progress.index, optimizer.param_groups[0]["lr"]
                rows = [encoded.in_batch_order(micro[run.processes.rank :: run.processes.size]) for micro in addresses]
                loss = take_step(run, step, micro_batches, rows, optimizer, hooks, self.clip)
                scheduler.step()
                progress.loss_sum += loss
                progress.n_tokens += sum(n_tokens(batch) for batch in micro_batches)
                progress.index += 1
                progress.done += 1
                _scale_rate(optimizer, scheduler, course.rate_share(progress, n_epoch_steps))
                progress.elapsed_s = time.perf_counter() - started
                run.listener.step(progress.index, loss)
                run.after_step(task, lambda: self._state(run, progress, best, optimizer, scheduler))
            progress.epoch += 1
            progress.done = 0
            course.judge(progress, best)
            progress.elapsed_s = time.perf_counter() - started
        if n_steps:
            course.finish(progress, best)
        return progress

    def _collate(self, model: Model) -> Callable[[list[Any]], Batch]:
        if not self.packing:
            return model.objective.collate
        check_packing(model)
        return partial(collate_packed, model.objective, in_one=takes_all_in_one(model.network))

    def _begin(self, run: "Run", task: Task, encoded: EncodedMixture, plan: BatchPlan) -> Progress:
        """Return the start of a task, with numbers for what is auto; these are told."""
        batch_size = encoded.rows_of_step(plan) if encoded.sizes[0] else 0
        if encoded.loader is not None:
            batch_size = max(map(len, encoded.loader.batches(0)), default=0) * plan.accumulation
        batch_size = max(1, min(batch_size, encoded.sizes[0]))
        if self.learning_rate != AUTO:
            return Progress(learning_rate=self.learning_rate, batch_size=batch_size)
        rate = float(f"{learning_rate_for(run.model, batch_size):.2g}")
        if not encoded.sizes[0]:  # a strategy left nothing to train on
            return Progress(learning_rate=rate, batch_size=batch_size)
        of_adam = "" if self.optimizer != "sgd" else " (the rule is Adam's; learner.optimizer: sgd mostly needs more)"
        run.inform(f"{task.name}: learning rate {rate:g}, {batch_size} rows a step{of_adam}.")
        return Progress(learning_rate=rate, batch_size=batch_size)

    def _plan(self, run: "Run", task: Task, encoded: EncodedMixture) -> BatchPlan:
        sorts = False if self.packing and self.group_by_length == "auto" else self.group_by_length
        plan = BatchPlan(self.batch_size, self.accumulation, sorts, self.batch_tokens)
        plan = fitting(plan, self, task, encoded)
        if plan.tokens is None:
            return plan
        if encoded.lengths is None:
            way_out = "Use learner.batch_size"
            where = "learner.batch_tokens"
            raise ConfigError(describe(where, f"the rows of task {task.name!r} are no tokens", plan.tokens, way_out))
        n_longer = int((encoded.lengths > plan.tokens).sum())
        if n_longer:
            run.note(
                f"Task {task.name!r}: {n_longer} of {len(encoded.lengths)} rows are longer than {plan.tokens} tokens "
                "and are each a batch of their own (learner.batch_tokens)."
            )
        return plan

    def _optimizer(self, run: "Run", parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        fused = parameters[0].device.type in ("cpu", "cuda") and not (run.sharded and self.optimizer == "sgd")
        shared = {"lr": learning_rate, "weight_decay": self.weight_decay, "fused": fused}
        groups = [{"params": parameters}]
        if self.backbone_scale != 1:
            heads = run.model.adapters.output_parameters()
            groups = [
                {"params": [p for p in parameters if id(p) in heads]},
                {
                    "params": [p for p in parameters if id(p) not in heads],
                    "lr": learning_rate * self.backbone_scale,
                },
            ]
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=self.momentum, **shared)
        return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.optimizer](
            groups, betas=tuple(self.betas), **shared
        )

    def _checkpoint_activations(self, network: nn.Module) -> None:
        if not self.gradient_checkpointing:
            return
        if not isinstance(network, PreTrainedModel | PeftModel):
            way_out = "Leave learner.gradient_checkpointing out for plain modules"
            raise ConfigError(describe("learner.gradient_checkpointing", "needs a language model", True, way_out))
        with warnings.catch_warnings():
            # its new name, activation_checkpointing_enable, is missing in the older releases that we allow
            warnings.simplefilter("ignore", FutureWarning)
            network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def _state(self, run: "Run", progress: Progress, best: Weights, optimizer: Any, scheduler: Any) -> dict[str, Any]:
        """Return what `train` needs to go on from here, bit for bit."""
        return {
            "progress": asdict(progress),
            **{name: run.processes.gather(vars(progress)[name]) for name in OWN},
            "best": best,
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "scaler": run.accelerator.scaler.state_dict() if run.accelerator.scaler else None,
            "rng": run.processes.gather(rng_state()),
        }


def _scale_rate(optimizer: torch.optim.Optimizer, scheduler: Any, share: float) -> None:
    """Let the next step be taken at a share of the peak rate, where that is less."""
    if share < 1:
        for group, rate in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["lr"] = rate * share


def take_step(
    run: "Run",
    step: Step,
    micro_batches: list[Batch],
    rows: list[list[tuple[int, int]]],
    optimizer: torch.optim.Optimizer,
    hooks: "Hooks",
    clip: float | None,
    loss_of: "StepLoss | None" = None,
) -> float:
    """One optimizer step. Targets of its micro-batches, over all processes, weigh alike, but for rows that are mixed in
    as rows (`everlearn.learners.weighing`). Returns the loss; by default that of right answers."""
    loss_of = loss_of or RightAnswers(row_weights(run, step, micro_batches, rows))
    shares = _shares(run, micro_batches)
    idle = _idle_passes(run, micro_batches) if run.sharded else []
    # used directly: Accelerate's wrappers around backward and step add 0.17 ms a step
    scaler = run.accelerator.scaler or torch.amp.GradScaler(enabled=False)
    losses = {"task": 0.0}
    for number, (batch, share, step.rows) in enumerate(zip(micro_batches, shares, rows, strict=True)):
        if not batch:
            continue
        step.batch = to_device(batch, run.accelerator.device)
        with run.accelerator.autocast():
            step.outputs = run.model.objective.forward(run.model.network, step.batch, hooks.past)
            step.weights = loss_of.weights(number, step.outputs)
            loss = loss_of.mean(number, step)
            losses["task"] += loss.item() * share
            for strategy in hooks.penalty:
                penalty = strategy.penalty(step)
                if penalty is not None:
                    losses[strategy.name] = losses.get(strategy.name, 0.0) + penalty.item() * share
                    loss = loss + penalty
        scaler.scale(loss * share if share != 1.0 else loss).backward()
    _pass_idly(run, idle, loss_of)
    total = sum(losses.values())
    if not abs(total) < float("inf"):
        raise _not_finite(run, step, losses)
    parameters = list(step.params.values())
    if run.processes.size > 1 and not run.sharded:  # else that is done with the passes
        sum_over_processes(parameters)
    scaler.unscale_(optimizer)
    hooks = hooks if _is_taken(scaler, parameters) else replace(hooks, edit_grads=[], after_step=[])
    for strategy in hooks.edit_grads:
        strategy.edit_grads(step)
    norm = step.gradient_norm = full(nn.utils.clip_grad_norm_(parameters, clip)) if clip is not None else None
    scaler.step(optimizer)
    scaler.update()
    if hooks.buffers is not None:
        hooks.buffers.share()
    run.log(losses, norm, step)
    for strategy in hooks.after_step:
        strategy.after_step(step)
    optimizer.zero_grad()
    return total


class StepLoss(Protocol):
    """What a step's micro-batches are to be learned by."""

    def weights(self, number: int, outputs: Outputs) -> torch.Tensor | None:
        """Return how much each item of micro-batch `number` counts, mean 1 over the step [n_items]; None: all alike."""
        ...

    def mean(self, number: int, step: Step) -> torch.Tensor:
        """Return the mean loss of the items of micro-batch `number`, which `step` holds."""
        ...

    def idle(self, batch: Batch) -> torch.Tensor | float:
        """Return 0, by the passes of other sharded networks than the run's that `mean` takes."""
        ...


@dataclass(frozen=True)
class RightAnswers:
    """The mean negative log-likelihood of the targets. of_rows: how much a target of each row counts."""

    of_rows: list[torch.Tensor | None]

    def weights(self, number: int, outputs: Outputs) -> torch.Tensor | None:
        weights, owners = self.of_rows[number], outputs.owners
        return None if weights is None else weights.to(owners.device)[owners]

    def mean(self, number: int, step: Step) -> torch.Tensor:
        return mean_loss(step.outputs, step.weights)

    def idle(self, batch: Batch) -> float:
        return 0.0


@dataclass(frozen=True)
class Hooks:
    """Who takes part in a step: the strategies of each hook of the loop, an unused hook costs nothing; and the buffers
    that several processes share."""  # fmt: skip

    penalty: list[Any]
    edit_grads: list[Any]
    after_step: list[Any]
    past: tuple[str, ...]  # earlier tasks, where a strategy distils their answers
    buffers: SharedBuffers | None  # None: one process

    @classmethod
    def of(cls, run: "Run") -> "Hooks":
        distils = any(strategy.wants_past_logits for strategy in run.strategies)
        loops = (overriding(run.strategies, hook) for hook in ("penalty", "edit_grads", "after_step"))
        past = tuple(run.past_tasks()) if distils else ()
        return cls(*loops, past, SharedBuffers.of(run.model.network) if run.processes.size > 1 else None)


def _is_taken(scaler: torch.amp.GradScaler, parameters: list[nn.Parameter]) -> bool:
    """Tell whether the scaler will take a step: it passes one over, and lowers its scale, where fp16 overflowed."""
    return not scaler.is_enabled() or all_finite([p.grad for p in parameters if p.grad is not None])


def _shares(run: "Run", micro_batches: list[Batch]) -> list[float]:
    """Return the share of the step's targets that each micro-batch of this process holds."""
    if len(micro_batches) == 1 and run.processes.size == 1:
        return [1.0]
    counts = [run.model.objective.n_items(batch) if batch else 0 for batch in micro_batches]
    total = run.processes.sum(sum(counts))
    return [count / total for count in counts]


def _idle_passes(run: "Run", micro_batches: list[Batch]) -> list[Batch]:
    """Return rows for as many passes as other processes take more: all must call sharded weights equally often."""
    own = [batch for batch in micro_batches if batch]
    counts = run.processes.gather(len(own))
    spare = {name: tensor[:1] for name, tensor in own[0].items()} if own else None
    if min(counts) == 0 < max(counts):
        spare = next(batch for batch in run.processes.gather(spare) if batch is not None)
    return [to_device(spare, run.accelerator.device)] * (max(counts) - len(own))


def _pass_idly(run: "Run", batches: list[Batch], loss_of: "StepLoss") -> None:
    """Take passes whose gradients are 0."""
    for batch in batches:
        with run.accelerator.autocast():
            outputs = run.model.objective.forward(run.model.network, batch)
            loss = 0.0 * outputs.logits.float().sum() + loss_of.idle(batch)
        loss.backward()


def n_tokens(batch: Batch) -> int:
    """Return the number of tokens in a batch, padding aside; of rows, where there are none."""
    if "rows" in batch:
        return int((batch["rows"] >= 0).sum())
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum())
    return batch["input_ids"].numel() if "input_ids" in batch else len(batch.get("y", ()))


def _not_finite(run: "Run", step: Step, losses: dict[str, float]) -> TrainingError:
    where = f"task {step.task.name!r}, step {step.index + 1} of {step.n_steps}"
    shapes = {name: list(tensor.shape) for name, tensor in step.batch.items()}
    way_out = (
        "Lower learner.learning_rate or the strategy's strength, or set learner.clip; the weights of before are kept"
        + (f"; resume from {run.saving.folder}" if run.saving.folder else "")
    )
    return TrainingError(describe(where, f"the loss is not finite (batch {shapes})", losses, way_out))

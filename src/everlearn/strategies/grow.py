"""Growth: the network gets more hidden units, or its LoRA more rank, before a task that is hard for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.learners.loader import row_batches
from everlearn.models.growth import add_capacity, fit_state
from everlearn.models.objectives import item_losses, to_device
from everlearn.models.soft import NO_LAYERS
from everlearn.registry import find, names, register
from everlearn.seeds import generator_for, seed_for
from everlearn.strategy import ADDS_LAYERS, NEEDS_TARGETS, Strategy, learned, why_apart
from everlearn.streams.sampling import draw_rows
from everlearn.types import Examples, Family, Group, Mixture, Step, Task
from everlearn.way import Run

_OWN = "it keeps which weights are whose, and growing changes the shape of them all"
_NEW_LORA = "it begins a new LoRA with every task, which is how it grows"
_FROZEN = "it freezes the weights that would grow"
_DIRECTIONS = "it holds directions in which earlier tasks' rows were seen, and those never went through the new units"
_NO_UNITS = "it adds hidden units to an MLP, or rank to a LoRA; the layers of a transformer keep their width"


def share_left(mean_loss: float, targets: torch.Tensor, family: Family) -> float:
    """Return the loss as a share of that of the best answer that doesn't look at the inputs.

    That is the entropy of the targets, nats, or half their variance where they are real numbers, of several labels the
    sum of their entropies; if it is 0, so is the share.

    Args:
        targets: [n_items], int64, or real numbers [n_items, ...].
    """
    if family == "bernoulli":
        p = targets.double().mean(0)
        blind = -(torch.special.xlogy(p, p) + torch.special.xlogy(1 - p, 1 - p)).sum()
    elif family == "normal":
        numbers = targets.double().reshape(len(targets), -1)
        blind = 0.5 * (numbers - numbers.mean(0)).square().sum(1).mean()
    else:
        shares = torch.bincount(targets).double() / len(targets)
        blind = -torch.special.xlogy(shares, shares).sum()
    return mean_loss / float(blind) if blind > 0 else 0.0


class Trial(Run):
    """A run that leaves nothing behind but the weights: it logs nothing, saves nothing and doesn't pause."""

    def log(self, losses: dict[str, float], gradient_norm: torch.Tensor | None, step: Step) -> None:
        """Send nothing."""

    def after_step(self, task: Task, learner_state: Callable[[], dict[str, Any]]) -> None:
        """Save nothing."""


@register("strategy", "grow")
@dataclass
class Grow(Strategy):
    """Add units to each hidden layer, or rank to the LoRA, before a task of which a trial leaves too much unlearned.

    The trial is ordinary training, without other methods, on a sample of the task's rows; its steps are undone. What it
    leaves is its loss on these rows as a share of the loss of the best answer that doesn't look at the inputs. New
    units are read by weights of 0, so that no answer changes when they come. The first task never grows the network.

    Args:
        when: hard (by the trial) or always (no trial).
        threshold: share left above which a task is hard: 0 any, 0.5 if more than half of what is to be known, 1 if the
            trial is no better than answering blindly.
        new_neurons: units that each hidden layer of an MLP gets.
        new_rank: rank that a LoRA gets. Its scale, alpha / rank, stays.
        max_growths: how often it grows, at most.
        n_examples: rows of the trial's sample, at most. With few rows the learner takes few steps, and all tasks look
            hard; see what `left` says in the results.

    Cost: the learner's epochs over `n_examples` rows a task, and a copy of what is trained meanwhile. Keeps the new
    weights.

    Source: Yoon et al. 2018 (DEN), arXiv 1708.01547, section 3: expand where retraining leaves a high loss; Chen et al.
    2016 (Net2Net), arXiv 1511.05641: widen and keep the function. Departs: every hidden layer gets the same number of
    units, and none is removed, split or stamped with its task; retraining is the trial, of all that is trained; the
    threshold is a share; new units are read by 0 in place of being copies. LoRA is our addition.
    Reproduces: not verified; our results stand in METHODS.md.
    """

    when: str = "hard"
    threshold: float = 0.5
    new_neurons: int = 64
    new_rank: int = 8
    max_growths: int = 10
    n_examples: int = 200

    left_: dict = learned(dict)  # task name -> share left by its trial
    n_growths_: int = learned(int)
    n_added_: int = learned(int)  # weights
    added_bytes_: int = learned(int)

    unsuited: ClassVar[dict[str, str]] = {
        "trainer": ADDS_LAYERS,
        "online": "it decides by a task's rows before the first step",
        **dict.fromkeys(("causal+full", "classify+full", "tag+full"), _NO_UNITS),
        "prompt": NO_LAYERS,
    }
    conflicts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("packnet", "pnn", "hat", "separate"), _OWN),
        **dict.fromkeys(("inclora", "olora", "inflora"), _NEW_LORA),
        **dict.fromkeys(("frozen", "seq_star", "l2p", "progressive_prompts"), _FROZEN),
        **dict.fromkeys(("gpm", "ogd"), _DIRECTIONS),
        "aflora": "it puts vectors of a fixed rank behind the matrices that would grow",
    }
    neutral: ClassVar[dict] = {"threshold": 1e9}

    def __post_init__(self) -> None:
        check_choice("grow.when", self.when, ("hard", "always"))
        check_number("grow.threshold", self.threshold, low=0)
        check_number("grow.new_neurons", self.new_neurons, low=1)
        check_number("grow.new_rank", self.new_rank, low=1)
        check_number("grow.max_growths", self.max_growths, low=0)
        check_number("grow.n_examples", self.n_examples, low=1)

    def check_model(self, traits: Sequence[str]) -> None:
        super().check_model(traits)
        if "rollouts" in traits and self.when == "hard":
            way_out = "Write always"
            raise ConfigError(describe("grow.when", f"it tries a task first, and {NEEDS_TARGETS}", self.when, way_out))

    def adapt_model(self, run: Run, task: Task) -> None:
        if not run.learned or self.n_growths_ >= self.max_growths or not len(task.train):
            return
        if self.when == "hard":
            self.left_[task.name] = round(self.try_task(run, task), 6)  # rounding differs with the processes
            if self.left_[task.name] <= self.threshold:
                return
        self._grow(run)

    def facts(self) -> dict[str, Any]:
        return {"growths": self.n_growths_, "weights_added": self.n_added_, "left": dict(self.left_)}

    def state_bytes(self) -> int:
        return super().state_bytes() + self.added_bytes_

    def try_task(self, run: Run, task: Task) -> float:
        """Return the share that training on a sample of the task leaves; the model is as it was afterwards."""
        generator = generator_for(run.seed, "grow", run.position, task.name)
        sample = replace(task, train=draw_rows(task.train, self.n_examples, generator), validation=None)
        adapters = run.model.adapters
        kept = {name: tensor.detach().clone() for name, tensor in adapters.tensors().items()}
        with torch.random.fork_rng(), run.model.evaluating():  # each module's training flag comes back
            torch.manual_seed(seed_for(run.seed, "grow", run.position, task.name, run.processes.rank))
            # without other methods: what they need is made when the task begins
            trial = Trial(
                run.model, run.learner, [], run.accelerator,
                seed=run.seed, tasks=run.tasks, learned=run.learned, position=run.position, current=task.name,
            )  # fmt: skip
            run.learner.train(trial, sample, Mixture((Group((Examples(sample, sample.train),)),)))
            run.model.network.eval()
            share = self._measure(run, sample)
        adapters.load_tensors(kept)
        return share

    @torch.no_grad()
    def _measure(self, run: Run, sample: Task) -> float:
        found = []
        shared = run.processes.share
        for _, batch in row_batches(run.model.objective, sample.train, sample, run.eval_batch_size, **shared):
            with run.accelerator.autocast():
                outputs = run.model.objective.forward(run.model.network, to_device(batch, run.accelerator.device))
            found.append((item_losses(outputs).double().cpu(), outputs.targets.cpu(), outputs.family))
        everyone = [batch for process in run.processes.gather(found) for batch in process]
        losses, targets, families = zip(*everyone, strict=True)  # a process may have had no row
        return share_left(torch.cat(losses).mean().item(), torch.cat(targets), families[0])

    def _grow(self, run: Run) -> None:
        n_new = self.new_rank if run.model.adapters.mode == "lora" else self.new_neurons
        former = grow_run(run, n_new)
        weights = dict(run.model.network.named_parameters())
        self.n_growths_ += 1
        for name, shape in former.items():
            n_added = weights[name].numel() - shape.numel()
            self.n_added_ += n_added
            self.added_bytes_ += n_added * weights[name].element_size()


def grow_run(run: Run, n_new: int) -> dict[str, torch.Size]:
    """Add units to each hidden layer of a run's model, or rank to its LoRA, and to what its strategies keep of them.

    The answers stay the same. Between tasks.

    Returns:
        {name of a parameter that grew: the shape it had}.

    Raises:
        ConfigError: if a strategy can't go on with weights that grow, or the model can't. ModelError: see
            `everlearn.models.growth.add_capacity`.
    """
    Grow().check_model(run.model.traits)
    for strategy in run.strategies:
        reason = why_apart(Grow, type(strategy))
        if reason is not None:
            way_out = f"{reason}; choose another method, or the size at the start"
            raise ConfigError(describe("growth", f"can't stand beside {strategy.name}", n_new, way_out))
    former = add_capacity(run.model, n_new, run.seed)
    weights = dict(run.model.network.named_parameters())
    for strategy in run.strategies:
        fit_state(strategy.state(), former, weights, strategy.keeps_weights)
    for name in run.dormant.keys() & names("strategy"):
        fit_state(run.dormant[name], former, weights, find("strategy", name).keeps_weights)
    return former

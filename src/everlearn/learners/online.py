"""Learning from one problem after another: answer, be told the right answer, take a step, answer again.

for row in task.train.arriving():                  # a problem comes
    before = answer(row)
    step on row (and on what the strategies mix in)    # learners/sft.py take_step, the same hooks
    after = answer(row)
    task.train.learned(Episode(...))               # the source is told how it went
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from everlearn.errors import ConfigError, StreamError, check_choice, check_number, describe
from everlearn.evaluation.generate import generate_greedily
from everlearn.evaluation.score import is_right
from everlearn.learners.devices import PRECISIONS
from everlearn.learners.loader import EncodedMixture, endless_rows
from everlearn.learners.rates import learning_rate_for
from everlearn.learners.sft import Hooks, Progress, n_tokens, take_step
from everlearn.models.chat import TRAIN_ON
from everlearn.models.objectives import Batch, losses_at
from everlearn.models.steps import LEARN
from everlearn.state import rng_state, set_rng_state
from everlearn.types import Episode, Mixture, Outputs, Row, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

ROWS_IN_STEPS = 8  # so many rows with short answers have about the targets of one with its worked steps
EASIEST, HARDEST, STEP_DOWN = 1, 5, 0.1  # the rate is multiplied by 1.0 at difficulty 1, by 0.6 from 5 on


@dataclass
class Arriving(Sequence):
    """The rows of a task in training that come one after another; as a sequence, those that came so far.

    Args:
        next_row: returns the next problem, or None where the task ends. n_expected: how many will come, at most.
        learned: is told about each episode when it is over.
        rate_factor: of the next step, beside the learner's own rate; whoever reacts to drift sets it.
        learner_state: returns what the learner's loop needs to go on from here, while it runs.
    """

    next_row: Callable[[], Row | None]
    learned: Callable[[Episode], None]
    n_expected: int = 1
    rows: list[Row] = field(default_factory=list)
    rate_factor: float = 1.0
    learner_state: Callable[[], dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def arriving(self) -> Iterator[Row]:
        """Yield the rows to come, each one of `rows` from then on."""
        while (row := self.next_row()) is not None:
            self.rows.append(row)
            yield row


@dataclass
class OnlineLearner:
    """Takes one optimizer step (or `updates`) on every problem right after answering it.

    The optimizer's moments go on from task to task, for the stream is one. What strategies mix in comes at their ratio:
    replay with ratio 5 puts five past problems beside the new one, others at each update; its `weight` says how much
    they count.

    Args:
        learning_rate: of AdamW, constant; auto: by the model's kind and width, for one new row a step
            (`everlearn.learners.rates`); where worked steps are learned, for eight, for each has more targets.
        rate_by_difficulty: multiply it by 1.0 for problems of difficulty 1, falling to 0.6 at 5.
        updates: optimizer steps on each problem.
        answer_after: answer again after the step; without it an episode takes a third less time.
        clip: largest gradient norm, or null. precision: no, bf16 or fp16.
        train_on: of a conversation: last, the last answer, or all, every turn of the assistant.
        learn: what is learned of a problem: answer; steps, its `explanation` and then the answer, where it has one; or
            auto, steps where problems are put as turns of a conversation (a model that talks has seen steps), else
            answer.
    """

    learning_rate: float | Literal["auto"] = "auto"
    rate_by_difficulty: bool = False
    weight_decay: float = 0.01
    clip: float | None = 1.0
    updates: int = 1
    answer_after: bool = True
    precision: str = "no"
    train_on: str = "last"
    learn: str = "auto"

    traits: ClassVar[tuple[str, ...]] = ("online",)
    moments_: dict[str, dict[str, torch.Tensor]] = field(init=False, repr=False, compare=False, default_factory=dict)
    n_rows_: int = field(init=False, repr=False, compare=False, default=0)  # problems learned in the tasks before

    def __post_init__(self) -> None:
        if self.learning_rate != "auto":
            check_number("learner.learning_rate", self.learning_rate, above=0)
        check_number("learner.weight_decay", self.weight_decay, low=0)
        check_number("learner.updates", self.updates, low=1)
        if self.clip is not None:
            check_number("learner.clip", self.clip, above=0)
        check_choice("learner.precision", self.precision, PRECISIONS)
        check_choice("learner.train_on", self.train_on, TRAIN_ON)
        check_choice("learner.learn", self.learn, LEARN)

    def tell_choices(self, run: "Run") -> None:
        """Tell what was chosen where the user left it open."""
        if self.learning_rate == "auto":
            run.inform(f"Learning rate {self._rate(run):g}.")
        if self.learn == "auto" and run.model.objective.in_steps:
            way_out = "learner.learn: answer learns the answer alone"
            run.inform(f"Where a problem has an explanation, it is learned before the answer ({way_out}).")

    def train(self, run: "Run", task: Task, mixture: Mixture, saved: dict[str, Any] | None = None) -> Progress:
        """Learn from the rows of `task.train`, an `Arriving`, until it ends."""
        batches = _Batches(run, task, mixture, self.n_rows_)
        n_steps = task.train.n_expected * self.updates
        step = Step(
            run, task, run.model.adapters.trainable(), n_steps=n_steps, by_row=batches.encoded.by_row
        )  # fmt: skip
        base_rate = self._rate(run)
        optimizer = torch.optim.AdamW(
            step.params.values(), lr=base_rate, weight_decay=self.weight_decay,
            fused=run.accelerator.device.type in ("cpu", "cuda"),
        )  # fmt: skip
        progress, started = Progress(), time.perf_counter()
        if saved is not None:
            progress = Progress(**saved["progress"])
            started -= progress.elapsed_s
            self.moments_ = saved["moments"]
            for row in task.train.rows:
                batches.add(row)
                for _ in range(self.updates):
                    batches.mixed_in()
            set_rng_state(saved["rng"])
        self._set_moments(optimizer, step.params)
        hooks, room = Hooks.of(run), run.model.objective.answer_room(task)
        task.train.learner_state = lambda: self._state(progress, optimizer, step)
        for row in task.train.arriving():
            episode_started = time.perf_counter()
            tell_if_cut(run, task, row)
            before = self._answer(run, task, row, room)
            rate = base_rate * task.train.rate_factor * self._scale(row)
            optimizer.param_groups[0]["lr"] = step.learning_rate = rate
            run.model.train()
            new = batches.add(row)
            for update in range(self.updates):
                batch, rows = batches.take([new, *batches.mixed_in()])
                step.index = progress.index
                progress.loss_sum += take_step(run, step, [batch], [rows], optimizer, hooks, self.clip)
                if update == 0:
                    loss = _loss_of(step.outputs, rows.index(new))
                progress.n_tokens += n_tokens(batch)
                progress.index += 1
            after = self._answer(run, task, row, room) if self.answer_after else None
            progress.elapsed_s = time.perf_counter() - started
            task.train.learned(
                Episode(
                    row=row,
                    before=before,
                    right_before=is_right(task, before, row, run.model.objective),
                    loss=loss,
                    learning_rate=rate,
                    after=after,
                    right_after=None if after is None else is_right(task, after, row, run.model.objective),
                    seconds=time.perf_counter() - episode_started,
                )
            )
            run.after_step(task, task.train.learner_state)
        task.train.learner_state = None
        run.model.train()
        self.moments_ = _moments(optimizer, step.params)
        self.n_rows_ += len(task.train.rows)
        return progress

    def _answer(self, run: "Run", task: Task, row: Row, room: int) -> str:
        network, objective, device = run.model.network, run.model.objective, run.accelerator.device
        if network.training:  # going through all modules takes a millisecond, so it stays so until the next step
            network.eval()
        with torch.no_grad():  # without autocast: for one prompt, casting the weights at each token doubles the time
            return generate_greedily(network, objective, objective.questions([row], room), room, device)[0]

    def _rate(self, run: "Run") -> float:
        if self.learning_rate != "auto":
            return self.learning_rate
        n_rows = ROWS_IN_STEPS if run.model.objective.in_steps else 1
        return float(f"{learning_rate_for(run.model, n_rows):.2g}")

    def _scale(self, row: Row) -> float:
        if not self.rate_by_difficulty:
            return 1.0
        if "difficulty" not in row:
            way_out = "Give each row its difficulty, or leave rate_by_difficulty out"
            raise StreamError(describe("learner.rate_by_difficulty", "a row has no difficulty", dict(row), way_out))
        return 1.0 - STEP_DOWN * (min(max(row["difficulty"], EASIEST), HARDEST) - EASIEST)

    def _set_moments(self, optimizer: torch.optim.Optimizer, params: dict[str, torch.nn.Parameter]) -> None:
        """Give each weight the moments that it had; one that is new begins without."""
        for name, parameter in params.items():
            if name in self.moments_ and self.moments_[name]["exp_avg"].shape == parameter.shape:
                kept = self.moments_[name]
                optimizer.state[parameter] = {key: value.to(parameter.device).clone() for key, value in kept.items()}

    def _state(self, progress: Progress, optimizer: torch.optim.Optimizer, step: Step) -> dict[str, Any]:
        """Return what `train` needs to go on from here, bit for bit."""
        return {
            "progress": vars(progress),
            "moments": _moments(optimizer, step.params),
            "rng": rng_state(),
        }


def tell_if_cut(run: "Run", task: Task, row: Row) -> None:
    """Tell, once, that a problem came which is longer than an example may be."""
    if sum(run.model.objective.lengths([row], task)[0]) > run.model.objective.max_length:
        limit = run.model.objective.max_length
        run.note(f"Problems came that are longer than {limit} tokens and lose the start of their prompt.")


def _loss_of(outputs: Outputs, row: int) -> float:
    """Return the mean loss of the targets of one row of the batch."""
    with torch.no_grad():
        return losses_at(outputs, outputs.owners == row).mean().item()


def _moments(optimizer: torch.optim.Optimizer, params: dict[str, torch.nn.Parameter]) -> dict[str, dict[str, Any]]:
    return {name: dict(optimizer.state[p]) for name, p in params.items() if optimizer.state.get(p)}


class _Batches:
    """Batches of one new row, beside it rows of what is mixed in, at its ratio."""

    def __init__(self, run: "Run", task: Task, mixture: Mixture, n_before: int):
        if mixture.groups[0].parts[0].rows is not task.train:
            way_out = "Leave out methods that replace the data: joint, cumulative, gdumb"
            names = [strategy.name for strategy in run.strategies]
            raise ConfigError(describe("strategies", "one of them keeps new problems out", names, way_out))
        self.encoded = EncodedMixture(mixture, run.model.objective)
        self.task = task
        self.rows: list[dict[str, Any]] = []
        self.encoded.parts[0] = [self.rows]
        seed_parts = (run.seed, run.position, task.name, "online")
        self._n_before = n_before  # rows of the tasks before: ratios hold over the whole stream
        self._mixed_in = [
            (each, endless_rows(each.group, self.encoded.sizes[each.group], seed_parts))
            for each in self.encoded.mixed_in()
        ]

    def add(self, row: Row) -> tuple[int, int]:
        """Return the (group, row) of a new row."""
        self.rows += self.encoded.objective.encode([row], self.task)
        return 0, len(self.rows) - 1

    def mixed_in(self) -> list[tuple[int, int]]:
        """Return the (group, row) of the rows that the newest is learned with; others each time."""
        now = self._n_before + len(self.rows)
        return [next(rows) for each, rows in self._mixed_in for _ in range(each.n_due(now - 1, now))]

    def take(self, addresses: list[tuple[int, int]]) -> tuple[Batch, list[tuple[int, int]]]:
        """Return the batch of these rows, and their addresses in its order."""
        return self.encoded.__getitems__(addresses), self.encoded.in_batch_order(addresses)

"""Learning from one row after another, or a few at a time: answer, be told the right answer, take a step, answer again.

for rows in task.train.arriving(batch_size):       # one or more rows come
    before = answers(rows)
    step on rows (and on what the strategies mix in)   # learners/sft.py take_step, the same hooks
    after = answers(rows)
    task.train.learned(Episode(...))               # of each row: the source is told how it went
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from everlearn.errors import ConfigError, StreamError, check_choice, check_number, describe
from everlearn.learners.answering import Answering
from everlearn.learners.devices import PRECISIONS
from everlearn.learners.loader import EncodedMixture, endless_rows
from everlearn.learners.rates import learning_rate_for
from everlearn.learners.sft import Hooks, Progress, n_tokens, take_step
from everlearn.models.causal import CausalObjective
from everlearn.models.chat import TRAIN_ON
from everlearn.models.objectives import Batch, losses_at
from everlearn.models.steps import LEARN
from everlearn.state import rng_state, set_rng_state
from everlearn.types import Episode, Mixture, Outputs, Row, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

JOINED = ("id", "answered")  # what a row has that was answered before its right answer came
AUTO, ADAPTIVE = "auto", "adaptive"  # in place of a learning rate
ROWS_IN_STEPS = 8  # so many rows with short answers have about the targets of one with its worked steps
EASIEST, HARDEST, STEP_DOWN = 1, 5, 0.1  # the rate is multiplied by 1.0 at difficulty 1, by 0.6 from 5 on


@dataclass
class Arriving(Sequence):
    """The rows of a task in training that come one after another; as a sequence, those that were handed to the learner.

    Args:
        next_row: returns the next row, or None where the task ends. n_expected: how many will come, at most.
        gathered: rows that came, and wait for others to be handed out with.
        learned: is told about each episode when it is over.
        rate_factor: of the next step, beside the learner's own rate; whoever reacts to drift sets it.
        learner_state: returns what the learner's loop needs to go on from here, while it runs.
    """

    next_row: Callable[[], Row | None]
    learned: Callable[[Episode], None]
    n_expected: int = 1
    rows: list[Row] = field(default_factory=list)
    gathered: list[Row] = field(default_factory=list)
    rate_factor: float = 1.0
    learner_state: Callable[[], dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def arriving(self, n: int = 1) -> Iterator[list[Row]]:
        """Yield the rows to come, `n` at a time, fewer where the task ends; they are of `rows` from then on."""
        while True:
            while len(self.gathered) < n and (row := self.next_row()) is not None:
                self.gathered.append(row)
            if not self.gathered:
                return
            rows, self.gathered = self.gathered, []
            self.rows += [{name: value for name, value in row.items() if name not in JOINED} for row in rows]
            yield rows


@dataclass
class OnlineLearner:
    """Takes one optimizer step (or `updates`) on every row, or few of them, right after answering it.

    The optimizer's moments go on from task to task, for the stream is one. What strategies mix in comes at their ratio:
    replay with ratio 5 puts five past problems beside the new one, others at each update; its `weight` says how much
    they count.

    Args:
        learning_rate: of AdamW, constant; auto: by the model's kind and width, for the new rows of a step
            (`everlearn.learners.rates`); where worked steps are learned, for eight times as many, for each has more
            targets. adaptive: from there on raised and lowered as `everlearn.learners.adaptive_rate` says.
        batch_size: new rows in a step. With more than one a row is answered when as many have come; rows that a pause
            leaves waiting are not lost.
        rate_by_difficulty: multiply it by 1.0 for problems of difficulty 1, falling to 0.6 at 5.
        updates: optimizer steps on each problem, or batch of rows.
        answer_after: answer again after the step; without it an episode takes a third less time. null: problems are,
            labelled rows aren't.
        clip: largest gradient norm, or null. precision: no, bf16 or fp16.
        train_on: of a conversation: last, the last answer, or all, every turn of the assistant.
        learn: what is learned of a problem: answer; steps, its `explanation` and then the answer, where it has one; or
            auto, steps where problems are put as turns of a conversation (a model that talks has seen steps), else
            answer.
    """

    learning_rate: float | Literal["auto", "adaptive"] = "auto"
    batch_size: int = 1
    rate_by_difficulty: bool = False
    weight_decay: float = 0.01
    clip: float | None = 1.0
    updates: int = 1
    answer_after: bool | None = None
    precision: str = "no"
    train_on: str = "last"
    learn: str = "auto"

    traits: ClassVar[tuple[str, ...]] = ("online",)
    moments_: dict[str, dict[str, torch.Tensor]] = field(init=False, repr=False, compare=False, default_factory=dict)
    n_rows_: int = field(init=False, repr=False, compare=False, default=0)  # problems learned in the tasks before

    def __post_init__(self) -> None:
        if self.learning_rate not in (AUTO, ADAPTIVE):
            check_number("learner.learning_rate", self.learning_rate, above=0)
        check_number("learner.batch_size", self.batch_size, low=1)
        check_number("learner.weight_decay", self.weight_decay, low=0)
        check_number("learner.updates", self.updates, low=1)
        if self.clip is not None:
            check_number("learner.clip", self.clip, above=0)
        check_choice("learner.precision", self.precision, PRECISIONS)
        check_choice("learner.train_on", self.train_on, TRAIN_ON)
        check_choice("learner.learn", self.learn, LEARN)

    def tell_choices(self, run: "Run") -> None:
        """Tell what was chosen where the user left it open."""
        if self.learning_rate in (AUTO, ADAPTIVE):
            run.inform(f"Learning rate {self._rate(run):g}{' at first' * (self.learning_rate == ADAPTIVE)}.")
        if self.learn == "auto" and _in_steps(run):
            way_out = "learner.learn: answer learns the answer alone"
            run.inform(f"Where a problem has an explanation, it is learned before the answer ({way_out}).")

    def train(self, run: "Run", task: Task, mixture: Mixture, saved: dict[str, Any] | None = None) -> Progress:
        """Learn from the rows of `task.train`, an `Arriving`, until it ends."""
        batches = _Batches(run, task, mixture, self.n_rows_)
        n_steps = -(-task.train.n_expected // self.batch_size) * self.updates
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
            for low in range(0, len(task.train.rows), self.batch_size):
                new = batches.add(task.train.rows[low : low + self.batch_size])
                for _ in range(self.updates):
                    batches.mixed_in(len(new))
            set_rng_state(saved["rng"])
        self._set_moments(optimizer, step.params)
        hooks, answering = Hooks.of(run), Answering(run, task)
        answer_after = task.kind == "prompt" if self.answer_after is None else self.answer_after
        task.train.learner_state = lambda: self._state(progress, optimizer, step)
        for rows in task.train.arriving(self.batch_size):
            episode_started = time.perf_counter()
            for row in rows:
                tell_if_cut(run, task, row)
            before = answering.answers(rows)
            rate = base_rate * task.train.rate_factor * sum(map(self._scale, rows)) / len(rows)
            optimizer.param_groups[0]["lr"] = step.learning_rate = rate
            run.model.train()
            new = batches.add(rows)
            for update in range(self.updates):
                batch, addresses = batches.take([*new, *batches.mixed_in(len(new))])
                step.index = progress.index
                progress.loss_sum += take_step(run, step, [batch], [addresses], optimizer, hooks, self.clip)
                if update == 0:
                    losses = [_loss_of(step.outputs, addresses.index(address)) for address in new]
                progress.n_tokens += n_tokens(batch)
                progress.index += 1
            after = answering.again(rows) if answer_after else [None] * len(rows)
            progress.elapsed_s = time.perf_counter() - started
            seconds = (time.perf_counter() - episode_started) / len(rows)
            for row, loss, *answers in zip(rows, losses, before, after, strict=True):
                right = [None if answer is None else answering.is_right(answer, row) for answer in answers]
                task.train.learned(
                    Episode(
                        row=row,
                        before=answers[0],
                        right_before=0.0 if answers[0] is None and task.kind != "score" else right[0],
                        loss=loss,
                        learning_rate=rate,
                        after=answers[1],
                        right_after=right[1],
                        seconds=seconds,
                    )
                )
            run.after_step(task, task.train.learner_state)
        task.train.learner_state = None
        run.model.train()
        self.moments_ = _moments(optimizer, step.params)
        self.n_rows_ += len(task.train.rows)
        return progress

    def _rate(self, run: "Run") -> float:
        if self.learning_rate not in (AUTO, ADAPTIVE):
            return self.learning_rate
        n_rows = self.batch_size * (ROWS_IN_STEPS if _in_steps(run) else 1)
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
    """Tell, once, that a row came which is longer than an example may be."""
    objective, limit = run.model.objective, run.model.objective.max_length
    causal = isinstance(objective, CausalObjective)
    told = (
        f"Problems came that are longer than {limit} tokens and lose the start of their prompt."
        if causal
        else f"Rows came that are longer than {limit} tokens and lose their end."
    )
    if told in run.notes:  # to look costs a pass through the tokenizer
        return
    if (sum(objective.lengths([row], task)[0]) if causal else objective.lengths([row])[0]) > limit:
        run.note(told)


def _in_steps(run: "Run") -> bool:
    return isinstance(run.model.objective, CausalObjective) and run.model.objective.in_steps


def _loss_of(outputs: Outputs, row: int) -> float:
    """Return the mean loss of the targets of one row of the batch; 0 where none was read."""
    with torch.no_grad():
        losses = losses_at(outputs, outputs.owners == row)
        return losses.mean().item() if len(losses) else 0.0


def _moments(optimizer: torch.optim.Optimizer, params: dict[str, torch.nn.Parameter]) -> dict[str, dict[str, Any]]:
    return {name: dict(optimizer.state[p]) for name, p in params.items() if optimizer.state.get(p)}


class _Batches:
    """Batches of new rows, beside them rows of what is mixed in, at its ratio."""

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

    def add(self, rows: Sequence[Row]) -> list[tuple[int, int]]:
        """Return the (group, row) of each of the new rows."""
        for row in rows:
            self.rows += self.encoded.objective.encode([row], self.task)
        return [(0, place) for place in range(len(self.rows) - len(rows), len(self.rows))]

    def mixed_in(self, n_new: int) -> list[tuple[int, int]]:
        """Return the (group, row) of the rows that the `n_new` newest are learned with; others each time."""
        now = self._n_before + len(self.rows)
        return [next(rows) for each, rows in self._mixed_in for _ in range(each.n_due(now - n_new, now))]

    def take(self, addresses: list[tuple[int, int]]) -> tuple[Batch, list[tuple[int, int]]]:
        """Return the batch of these rows, and their addresses in its order."""
        return self.encoded.__getitems__(addresses), self.encoded.in_batch_order(addresses)

"""Runs by reinforcement: a supervised run's loop over tasks and its log, with warm starts, and measured as policies.

Beside what every run leaves there is iterations.jsonl: a line an iteration, and one for each measurement.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from everlearn.errors import ConfigError, StreamError, describe
from everlearn.kinds.reinforcement.recipe import ReinforcementRecipe, WarmStart
from everlearn.learners.ppo import PPO
from everlearn.learners.sft import SupervisedLearner
from everlearn.provenance import Provenance, data_record
from everlearn.registry import register
from everlearn.report.policy_records import ITERATIONS
from everlearn.report.records import WARM_START
from everlearn.rl.measures import divergence, dormant_share, sample_answers
from everlearn.rl.rollouts import can_be_packed
from everlearn.rl.sampler import Sampler
from everlearn.rl.weights import distance, reference_weights, snapshot
from everlearn.runs import LOG, Supervised
from everlearn.saving import Saving
from everlearn.strategy import overriding
from everlearn.streams.schedule import Schedule
from everlearn.types import Cost, Row, Task
from everlearn.way import Run

if TYPE_CHECKING:
    from everlearn.report.table import Grid
    from everlearn.report.views import RunView


@register("run", "reinforcement")
class Reinforcement(Supervised):
    """Learn the tasks of a stream one after another from what the model's own answers are worth."""

    recipe_type = ReinforcementRecipe
    log_names = (LOG, ITERATIONS)

    @classmethod
    def tells(cls, content: dict[str, Any]) -> bool:
        learner = content.get("learner")
        return "warm_start" in content or (isinstance(learner, dict) and learner.get("name") == "ppo")

    @classmethod
    def holds(cls, folder: Path) -> bool:
        return cls.recipe_file(folder).is_file() and super().holds(folder)  # a log alone is a supervised run's

    def open(self, accelerator: Accelerator) -> Provenance:
        super().open(accelerator)
        for task in self.schedules[self.recipe.all_seeds()[0]].stream:
            if task.kind != "prompt":
                way_out = "Give rows with prompts, and what answers are judged by"
                raise StreamError(describe(f"task {task.name!r}", "can't be answered", task.kind, way_out))
        warm = self.recipe.warm_start
        if warm is not None:
            self._check_beside(warm)
            self.schedules = {seed: with_warm_starts(schedule, warm) for seed, schedule in self.schedules.items()}
            steps = {step.name: step for schedule in self.schedules.values() for step in schedule.steps}
            data = [data_record(step) for name, step in steps.items() if name.startswith(WARM_START)]
            self.made_of = replace(self.made_of, data=(*self.made_of.data, *data))
        return self.made_of

    def start(self, seed: int, saving: Saving, accelerator: Accelerator) -> Run:
        self.learner = self.recipe.build_learner()  # it keeps what it learned beside the weights
        one = super().start(seed, saving, accelerator)
        if isinstance(one.learner, PPO):
            one.learner.check_model(one.model)
        self.began: dict[str, torch.Tensor] = {}  # the policy that divergence is measured from
        return one

    def learn(self, one: Run, *, resumed: bool) -> None:
        if isinstance(one.learner, PPO):
            one.learner.told = self._told
        super().learn(one, resumed=resumed)

    def learn_task(self, one: Run, task: Task, saved: dict[str, Any] | None) -> Cost:
        if not task.name.startswith(WARM_START):
            self.began = self.began or snapshot(one.model.adapters.trainable())
            if isinstance(one.learner, PPO):
                one.learner.start_ = self.began
            cost = one.learn(task, saved)
        else:
            with warming(one, self.recipe.warm_start):
                cost = one.learn(task, saved)
            one.learned.pop()  # strategies protect what is learned from here on
            del one.tasks[task.name]
        self._keep(one)
        return cost

    def restore(self, one: Run) -> dict[str, Any] | None:
        training = super().restore(one)
        self.began = one.saving.context.get("began", {})
        if isinstance(one.learner, PPO):
            one.learner.critic_ = one.saving.context.get("critic", {})
        return training

    def summarise(self) -> dict[str, Any]:
        from everlearn.report.policy_records import read_policy
        from everlearn.report.policy_results import policy_results
        from everlearn.report.records import read_run

        run = read_run(self.out)
        return policy_results(run, read_policy(run))

    @classmethod
    def write_report(cls, views: Sequence["RunView"], out: Path) -> list["Grid"]:
        from everlearn.report.policy_page import write_policy_report

        return write_policy_report(views, out)

    def _check_beside(self, warm: WarmStart) -> None:
        """Raise ConfigError where strategies, which rest meanwhile, and a warm start later on would undo each other.

        Those that change the model before a task have frozen none of what it moves, or put other weights in its place.
        """
        for strategy in self.recipe.build_strategies() if warm.when == "task" else ():
            if overriding([strategy], "adapt_model") or "initial_" in strategy.keeps_weights:
                what = f"{strategy.name} holds or puts back what earlier tasks left, and rests during a warm start"
                raise ConfigError(describe("warm_start.when", what, warm.when, "Write start"))

    def _score_all(self, one: Run, tasks: list[Task], after: int, trained: str | None) -> None:
        super()._score_all(one, tasks, after, trained)
        self._measure(one, {"after": after, "trained": trained, "iteration": None})
        if after < 0:
            self.keep_length(one.saving)

    def _told(self, one: Run, task: Task, numbers: dict[str, Any], last: bool) -> None:
        """Write an iteration down, and measure the policy where it is time to."""
        done, where = numbers["iteration"], {"seed": one.seed, "after": one.position, "trained": task.name}
        self.logs[ITERATIONS].append({"type": "iteration", **where, **numbers}, sync=False)
        self.listener.iteration(done, numbers["success"])
        if one.accelerator.trackers:
            one.n_logged += 1
            told = {name: value for name, value in numbers.items() if isinstance(value, int | float)}
            one.accelerator.log({f"{task.name}/{name}": value for name, value in told.items()}, step=one.n_logged)
        if done % self.recipe.evaluation.interval == 0 and not last:
            self._measure(one, {**where, "iteration": done})
        self._keep(one)

    def _measure(self, one: Run, where: dict[str, Any]) -> None:
        """Write down how often the policy is right on each task's held-out problems, and how far it has come."""
        sampler = (
            one.learner.sampler(one, "own")
            if isinstance(one.learner, PPO)
            else Sampler(one.model, one.accelerator.device, "own")
        )
        line: dict[str, Any] = {"type": "evaluation", **where, "seed": one.seed, "tasks": {}}
        packed, n_tokens, kl, asleep = can_be_packed(one.model), 0, 0.0, []
        weights = reference_weights(one.model, self.began)
        changing = bool(overriding(one.strategies, "before_eval"))
        for number, task in enumerate(self.schedules[one.seed].stream):
            room = self._room(one, task)
            purpose = (one.seed, "measure", where["after"], where["iteration"])
            with one.ready_for(task):
                if changing or not number:
                    sampler.refresh()  # of the weights that the strategies answer this task with
                best = sample_answers(one, sampler, task, 1, 0.0, room, purpose)
                found = sample_answers(one, sampler, task, self.recipe.evaluation.samples, 1.0, room, purpose)
                n_drawn = sum(answered.n_drawn_tokens for answered in found.answered)
                if self.began:
                    kl += n_drawn * divergence(one, found.answered, weights, packed=packed)
                asleep.append(dormant_share(one, found.answered, packed=packed))
            n_tokens += n_drawn
            line["tasks"][task.name] = {
                "greedy": best.outcomes, "sampled": found.outcomes, "length": found.length, "cut_off": found.cut_off,
            }  # fmt: skip
        if self.began:
            line["kl_to_start"] = kl / n_tokens if math.isfinite(kl) else None  # it has no upper bound
            moved, size = distance(dict(one.model.network.named_parameters()), weights)
            line["weight_change"] = moved / size if size else None  # all may begin at 0
        line["dormant"] = None if None in asleep else sum(asleep) / len(asleep)
        self.logs[ITERATIONS].append(line)

    def _room(self, one: Run, task: Task) -> int:
        """Return how many tokens an answer may have."""
        most = one.learner.max_new_tokens if isinstance(one.learner, PPO) else None
        return most or one.model.objective.answer_room(task)

    def _keep(self, one: Run) -> None:
        """Lay ready what a checkpoint holds besides model and strategies."""
        one.saving.context["began"] = self.began
        if isinstance(one.learner, PPO):
            one.saving.context["critic"] = one.learner.critic_
        self.keep_length(one.saving)


def with_warm_starts(schedule: Schedule, warm: WarmStart) -> Schedule:
    """Return the schedule with steps of supervised learning: one at first, or one before each task."""
    steps: list[Task] = []
    if warm.when == "start":
        rows = [row for task in schedule.stream for row in _first_rows(task, warm)]
        first = schedule.stream.tasks[0]
        steps.append(replace(first, name=WARM_START, train=rows, evaluation=[], validation=None))
    for step in schedule.steps:
        if warm.when == "task":
            name = f"{WARM_START} of {step.name}"
            steps.append(replace(step, name=name, train=_first_rows(step, warm), evaluation=[], validation=None))
        steps.append(step)
    return Schedule(schedule.stream, tuple(steps))


def _first_rows(task: Task, warm: WarmStart) -> list[Row]:
    if warm.rows > len(task.train):
        way_out = "Ask for fewer, or give it more"
        raise ConfigError(
            describe("warm_start.rows", f"task {task.name!r} has {len(task.train)} training rows", warm.rows, way_out)
        )
    return [dict(task.train[i]) for i in range(warm.rows)]


@contextmanager
def warming(one: Run, warm: WarmStart) -> Iterator[None]:
    """Let a run learn from right answers meanwhile, and its strategies rest."""
    learner, strategies = one.learner, one.strategies
    rate, shape = warm.learning_rate, {"epochs": warm.epochs, "batch_size": warm.batch_size}
    one.learner = SupervisedLearner(**shape, learning_rate=rate, schedule="linear", precision=learner.precision)
    one.strategies, dormant = [], one.dormant
    one.dormant = {**dormant, **{strategy.name: strategy.state() for strategy in strategies}}
    try:
        yield
    finally:
        one.learner, one.strategies, one.dormant = learner, strategies, dormant

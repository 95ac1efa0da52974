"""Running the trials: the one that tells the time, and those of the methods, up to a deadline."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from everlearn.errors import ConfigError, Paused, TrainingError, describe
from everlearn.kinds.advice.candidates import METHOD_COST, PLAIN, Candidate
from everlearn.kinds.advice.sizing import (
    MIN_ITEMS,
    MIN_ROWS,
    Sizes,
    Timing,
    Volume,
    budget_text,
    fit_sizes,
    measure_timing,
)
from everlearn.learners.budget import AUTO
from everlearn.listener import Listener
from everlearn.runs import drop_weights, is_finished, run, run_or_resume
from everlearn.streams.schedule import Schedule
from everlearn.types import Score, Task

TIMING_ROWS, TIMING_ITEMS = 32, 8  # of a task, in the timing trial
SPENT_SHARE = 0.85  # of the budget is planned; methods differ in what they cost


def trial_content(content: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the recipe of every trial, its methods and sizes aside: each runs all its epochs."""
    learner = dict(content["learner"])
    if learner["name"] == "sft":
        learner["early_stopping"] = False
        if learner.get("epochs") == AUTO:  # sized by the time of an epoch, so that all take as many
            del learner["epochs"]
    trial = {name: content[name] for name in ("model", "device") if name in content}
    evaluation = {key: value for key, value in (content.get("evaluation") or {}).items() if key != "future"}
    return {"stream": dict(content["stream"]), **trial, "learner": learner, "evaluation": evaluation, "seed": seed}


def limits(schedule: Schedule, sizes: Sizes) -> dict[str, dict[str, int]]:
    """Return the stream's per_task and per_task_eval of a trial, which never ask for more than there is."""
    return {
        "per_task": {task.name: min(len(task.train), sizes.rows) for task in schedule.stream},
        "per_task_eval": {task.name: min(len(task.evaluation), sizes.items) for task in schedule.stream},
    }


def time_trial(
    trial: Mapping[str, Any], schedule: Schedule, folder: Path, deadline: float, budget_s: float, listener: Listener
) -> Timing:
    """Run the timing trial and return what it shows; nothing of it is kept."""
    sizes, watch = Sizes(TIMING_ROWS, TIMING_ITEMS), _Watch(listener, deadline)
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    try:
        listener.part("timing")
        short = {**trial, "stream": {**trial["stream"], **limits(schedule, sizes)}}
        results = run(short, folder, listener=watch)
    except _OutOfTime:
        share = watch.n_done / max(1, watch.n_steps * len(schedule.steps)) or 0.05
        # the timing trial, then plain training and a method at the smallest sizes
        needed = (time.monotonic() - started) / share * (1 + (1 + METHOD_COST) * MIN_ROWS / TIMING_ROWS / SPENT_SHARE)
        raise _too_small(budget_s, needed) from None
    except Paused:
        raise KeyboardInterrupt from None  # nothing to go on with
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    steps = results["seeds"][0]["cost"]["steps"]
    return measure_timing(time.monotonic() - started, steps, Volume.of(schedule).within(sizes))


def plan_sizes(
    timing: Timing, schedule: Schedule, candidates: Sequence[Candidate], deadline: float, budget_s: float
) -> Sizes:
    """Return the sizes of all trials, by what is left of the budget.

    Raises:
        ConfigError: if not even two candidates of the smallest sizes fit; it says what would do.
    """
    volume = Volume.of(schedule)
    left_s = deadline - time.monotonic()
    sizes = fit_sizes(timing, volume, [c.cost for c in candidates], SPENT_SHARE * left_s)
    if sizes is None:
        smallest = volume.within(Sizes(MIN_ROWS, MIN_ITEMS))
        two_s = sum(timing.trial_s(smallest, candidate.cost) for candidate in candidates[:2])
        raise _too_small(budget_s, budget_s - left_s + two_s / SPENT_SHARE)
    return sizes


def run_trials(
    trial: Mapping[str, Any],
    candidates: Mapping[Path, Candidate],
    deadline: float,
    plain_s: float,
    listener: Listener,
) -> dict[str, str]:
    """Run what is not finished, one after another, each in its folder, while `plain_s` are left before the deadline.

    Returns:
        {name: why it was not tried}, for those that are not finished.
    """
    not_tried = {}
    for folder, candidate in candidates.items():
        if is_finished(folder):
            continue
        if deadline - time.monotonic() < plain_s:
            not_tried[candidate.name] = "the budget had run out"
            continue
        try:
            listener.part(candidate.name)
            _run_one({**trial, "strategies": list(candidate.strategies)}, folder, _Watch(listener, deadline))
        except _OutOfTime:
            not_tried[candidate.name] = "stopped when the budget ran out"
        except TrainingError as error:
            if candidate.name == PLAIN:
                raise
            not_tried[candidate.name] = f"failed: {error}"
    return not_tried


def _run_one(recipe: Mapping[str, Any], folder: Path, listener: Listener) -> None:
    """Run a trial, or go on with it; of a finished one the results are kept, not the weights."""
    run_or_resume(recipe, folder, listener=listener)
    drop_weights(folder)


class _OutOfTime(Exception):
    """The budget ran out within a trial."""


class _Watch(Listener):
    """Passes on what it is told, and stops the trial at the deadline. Counts steps, to tell how far a trial came."""

    def __init__(self, listener: Listener, deadline: float):
        self.listener, self.deadline = listener, deadline
        self.n_steps = self.n_done = 0

    def training(self, task: Task, n_steps: int, done: int) -> None:
        self.n_steps = n_steps
        self._check()
        self.listener.training(task, n_steps, done)

    def step(self, done: int, loss: float) -> None:
        self.n_done += 1
        self.listener.step(done, loss)
        self._check()

    def encoding(self, task: Task, done: int, n_rows: int) -> None:
        self.listener.encoding(task, done, n_rows)

    def inform(self, text: str) -> None:
        self.listener.inform(text)

    def note(self, text: str) -> None:
        self.listener.note(text)

    def consolidating(self, task: Task) -> None:
        self.listener.consolidating(task)

    def scoring(self, task: Task) -> None:
        self._check()
        self.listener.scoring(task)

    def scored(self, score: Score) -> None:
        self.listener.scored(score)

    def _check(self) -> None:
        if time.monotonic() > self.deadline:
            raise _OutOfTime


def _too_small(budget_s: float, needed_s: float) -> ConfigError:
    way_out = f"Plain training and one method need about {budget_text(1.1 * needed_s)}; a smaller model needs less"
    return ConfigError(describe("--budget", "is too small to compare two methods", budget_text(budget_s), way_out))

"""One seed's episodes: what comes next, where a task ends, and what is saved of it.

`problems` and `labelled` add what the two sorts of rows need.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from everlearn.errors import EverlearnError, StreamError, describe
from everlearn.kinds.online.recipe import BY_TYPE, OnlineRecipe
from everlearn.learners.adaptive_rate import AdaptiveRate
from everlearn.learners.answering import Answering
from everlearn.learners.drift import Reaction
from everlearn.learners.online import ADAPTIVE, Arriving
from everlearn.record import JsonLines
from everlearn.report.online_results import EPISODES, EVALUATIONS, QUESTIONS
from everlearn.streams.delayed import is_question
from everlearn.streams.source import Source
from everlearn.types import Episode, Row, Task
from everlearn.way import Run

Logs = Mapping[str, JsonLines]  # by their files' names
STREAM = "stream"  # the task's name where the stream isn't divided by type


def type_of(row: Row) -> str:
    """Return the problem's type, by which tasks are divided."""
    if row.get("type") is None:
        way_out = "Give each row its type, or make boundary a number of episodes"
        raise StreamError(describe("boundary", "a row has no type", row.get("prompt", row), way_out))
    return row["type"]


class Session:
    """The episodes of one run, from its first or from where the newest checkpoint stands."""

    def __init__(self, run: Run, recipe: OnlineRecipe, source: Source, logs: Logs):
        self.run, self.recipe, self.logs = run, recipe, logs
        self.seed_number = run.saving.context["seed_number"]
        self.feed = source.feed(run.seed, recipe.episodes or sys.maxsize)
        self.most = recipe.episodes or math.inf
        self.response = recipe.drift.response(run.seed) if recipe.drift is not None else None
        self.reaction = Reaction()
        self.rate = AdaptiveRate() if recipe.learner.learning_rate == ADAPTIVE else None
        self.episodes, self.evaluations = logs[EPISODES], logs[EVALUATIONS]
        n_expected = min((n for n in (recipe.boundary, recipe.episodes) if isinstance(n, int)), default=1)
        self.arriving = Arriving(self._next, self._learned, n_expected)
        self.pending: Row | None = None  # given by the feed, and not begun yet
        self.n_done = self.scored_at = 0
        self._asked_at: float | None = None  # when the present task's first problem was asked for
        self._ended_at: float | None = None  # when there was none left

    def tell(self) -> None:
        """Tell what is to be said of the rows that are known."""

    def check(self, row: Row) -> None:
        """Raise StreamError if a row that came can't be learned."""

    def arrived(self, row: Row) -> Row | None:
        """Return the row that came, or None where it waits for its answer: then it is answered now."""
        if not is_question(row):
            return row
        answer = self.answer(row)
        self.feed.asked(row, answer)
        self.logs[QUESTIONS].append({"seed": self.run.seed, "id": row["id"], "answer": answer}, sync=False)
        return None

    def answer(self, row: Row) -> Any:
        """Return what the model, as it is now, answers to a row."""
        name = self._task_name(row)
        task = self.run.tasks[name] if name in self.run.tasks else self.task(name)
        if task.labels:
            self.run.add_labels(task)
        return Answering(self.run, task).again([row])[0]

    def is_boundary(self, last: Row, row: Row) -> bool:
        """Tell whether a task ends between two rows because of what they are."""
        return self.recipe.boundary == BY_TYPE and self._task_name(row) != self._task_name(last)

    def task(self, name: str) -> Task:
        """Return the task that begins: its rows are still to come."""
        raise NotImplementedError

    def told(self, episode: Episode) -> dict[str, Any]:
        """Take note of an episode; return what is written down of its row and its answers."""
        raise NotImplementedError

    def score(self) -> None:
        """Write down how the model does now."""
        raise NotImplementedError

    def more(self) -> dict[str, Any]:
        """Return what is saved beside what all sessions save, as JSON."""
        return {}

    def load_more(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `more` returned."""

    def go(self, *, resumed: bool) -> None:
        """Learn all episodes, from the start or from the newest checkpoint."""
        self.run.saving.when_paused = self.feed.stop
        self.run.saving.when_saved = lambda: self.feed.saved(self.run.saving.context["feed"])
        self.tell()
        self.run.learner.tell_choices(self.run)
        training = self._restore() if resumed else None
        if not resumed:
            self.score()
            self._save()
        while training is not None or self._peek() is not None:
            if training is None:
                self._pause_if_asked()
            name = training["task"] if training else self._task_name(self.pending)
            if training is None:
                self.arriving.rows, self.reaction = [], replace(self.reaction, end_segment=False)
            self.run.tasks[name] = self.task(name)
            self._keep()
            self._learn(self.run.tasks[name], training["learner"] if training else None)
            training = None
            self.run.position += 1
            self._score_when_due()
            self._keep()
        if not self.n_done:
            way_out = f"Give it some, then: everlearn resume {self.run.saving.folder}"
            raise StreamError(describe("source", "gave no problem to learn from", self.recipe.source, way_out))
        if self.scored_at < self.n_done:
            self.score()
        self._save()
        # behind what the checkpoint knows of: a run that is killed now resumes here and writes it once
        self.evaluations.append({"type": "end", "seed": self.run.seed, "episode": self.n_done})

    def _learn(self, task: Task, training: dict[str, Any] | None) -> None:
        """Learn the problems of a task, and note what its begin and end took beside them."""
        began, self._asked_at, self._ended_at = time.perf_counter(), None, None
        self.run.learn(task, training)
        seconds = self._asked_at - began + time.perf_counter() - self._ended_at
        line = {"type": "task", "seed": self.run.seed, "episode": self.n_done, "seconds": round(seconds, 4)}
        self.evaluations.append(line)

    def _peek(self) -> Row | None:
        """Return the row that comes next, without beginning it."""
        while self.pending is None and self.n_done + len(self.arriving.gathered) < self.most:
            self._pause_if_asked()
            due = self.run.saving.unsaved_for()
            if due is not None and not self.feed.wait(due):
                self._save()
            try:
                row = self.feed.next()
                if row is not None:
                    self.check(row)
            except EverlearnError:
                self._checkpoint()  # as it was before this row: it is met again after a resume
                raise
            if row is None:
                self._pause_if_asked()
                break
            self.pending = self.arrived(row)
        return self.pending

    def _next(self) -> Row | None:
        """Return the next problem of the present task, or None where the task ends.

        Scorings wait for it: one on a task's end sees what the strategies leave in the model then.
        """
        if self._asked_at is None:
            self._asked_at = time.perf_counter()
        row, rows = self._peek(), [*self.arriving.rows, *self.arriving.gathered]
        if row is None or (rows and self._is_end(rows, row)):
            self._ended_at = time.perf_counter()
            return None
        if rows:
            self._score_when_due()
            self._pause_if_asked()
        self.pending = None
        return row

    def _pause_if_asked(self) -> None:
        if self.run.saving.pause_requested:
            self._save()
            self.run.saving.pause_if_asked()

    def _save(self) -> None:
        """Save all that was learned, in a task or between two."""
        self._keep()
        self._checkpoint()

    def _checkpoint(self) -> None:
        training = None
        if self.arriving.learner_state is not None:
            training = {"task": self.run.current, "learner": self.arriving.learner_state()}
        self.run.checkpoint(training)

    def _is_end(self, rows: Sequence[Row], row: Row) -> bool:
        if self.reaction.end_segment or self.is_boundary(rows[-1], row):
            return True
        return not isinstance(self.recipe.boundary, str) and len(rows) >= self.recipe.boundary

    def _task_name(self, row: Row) -> str:
        name = type_of(row) if self.recipe.boundary == BY_TYPE else STREAM
        return f"{name}, {self.reaction.task} drifts on" if self.reaction.task else name

    def _learned(self, episode: Episode) -> None:
        self.n_done += 1
        self.feed.answered(episode.row, episode.right_before)
        if self.response is not None:
            watched = self.recipe.drift.error_of(episode.right_before, episode.loss)
            reaction = self.response.observe(watched)
            end = reaction.end_segment or self.reaction.end_segment  # of a row learned in the same step
            self.reaction = replace(reaction, end_segment=end)
        if self.rate is not None:
            self.rate.observe(episode.loss, self.reaction.drift)
        self._set_rate()
        line = {
            "seed": self.run.seed,
            "episode": self.n_done,
            **self.told(episode),
            "correct": episode.right_before,
            "correct_after": episode.right_after,
            "loss": episode.loss,
            "learning_rate": episode.learning_rate,
            "drift": self.reaction.drift,
            "seconds": round(episode.seconds, 4),
        }
        self.episodes.append(line, sync=False)
        self.run.listener.episode(self.n_done, self.recipe.episodes, episode)
        self._keep()

    def _score_when_due(self) -> None:
        if self.n_done // self.recipe.evaluation.interval > self.scored_at // self.recipe.evaluation.interval:
            self.score()

    def _keep(self) -> None:
        """Lay ready what a checkpoint holds besides model, strategies and learner."""
        self.run.saving.context = {
            "seed_number": self.seed_number,
            "n_done": self.n_done,
            "scored_at": self.scored_at,
            "rows": self.arriving.rows,
            "gathered": list(self.arriving.gathered),
            "pending": self.pending,
            "feed": self.feed.state(),
            "drift": None if self.response is None else [self.response.state(), asdict(self.reaction)],
            "rate": None if self.rate is None else self.rate.state(),
            **self.more(),
            "moments": self.run.learner.moments_,
            "n_rows": self.run.learner.n_rows_,
            "scaler": None if self.run.accelerator.scaler is None else self.run.accelerator.scaler.state_dict(),
            "n_bytes": {name: log.n_bytes() for name, log in self.logs.items()},
        }

    def _restore(self) -> dict[str, Any] | None:
        """Go on where the newest checkpoint stands; return its training, or None between tasks."""
        training = self.run.restore()
        context = self.run.saving.context
        self.n_done, self.scored_at, self.pending = context["n_done"], context["scored_at"], context["pending"]
        self.arriving.rows, self.arriving.gathered = context["rows"], context.get("gathered", [])
        self.feed.load_state(context["feed"])
        self.run.learner.moments_ = context["moments"]
        self.run.learner.n_rows_ = context.get("n_rows", 0)  # checkpoints of before don't tell
        if self.run.accelerator.scaler is not None:
            self.run.accelerator.scaler.load_state_dict(context["scaler"])
        if self.response is not None:
            state, reaction = context["drift"]
            self.response.load_state(state)
            self.reaction = Reaction(**reaction)
        if self.rate is not None:
            self.rate.load_state(context["rate"])
        self._set_rate()
        self.load_more(context)
        return training

    def _set_rate(self) -> None:
        """Set the rate of the next step."""
        self.arriving.rate_factor = self.reaction.rate_factor * (1.0 if self.rate is None else self.rate.factor)

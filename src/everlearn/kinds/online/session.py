"""One seed's episodes: what comes next, where a task ends, and what is written down."""

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from everlearn.errors import EverlearnError, ModelError, StreamError, describe
from everlearn.kinds.online.recipe import BY_TYPE, OnlineRecipe
from everlearn.learners.drift import Reaction
from everlearn.learners.online import Arriving
from everlearn.models.export import save_trained, unknown_layers
from everlearn.record import JsonLines
from everlearn.report.online_results import EPISODES, EVALUATIONS
from everlearn.streams.source import Source, check_problem, names_of
from everlearn.types import Episode, Row, Task
from everlearn.way import Run

Logs = Mapping[str, JsonLines]  # by their files' names
STREAM = "stream"  # the task's name where the stream isn't divided by type


def check_apart(row: Row, held_out: set[tuple[str, str]]) -> None:
    """Raise StreamError if a row to be learned is the same problem as one of those held out: `names_of` them all."""
    if names_of(row) & held_out:
        way_out = "Take it out of the problems to learn from, or hold out others"
        raise StreamError(describe("online", "a held-out problem comes up for learning", row["prompt"], way_out))


def names_of_all(rows: Iterable[Row]) -> set[tuple[str, str]]:
    """Return the names of all problems."""
    return {name for row in rows for name in names_of(row)}


def type_of(row: Row) -> str:
    """Return the problem's type, by which tasks are divided."""
    if row.get("type") is None:
        way_out = "Give each row its type, or make boundary a number of episodes"
        raise StreamError(describe("boundary", "a row has no type", row["prompt"], way_out))
    return row["type"]


class Session:
    """The episodes of one run, from its first or from where the newest checkpoint stands."""

    def __init__(self, run: Run, recipe: OnlineRecipe, source: Source, held_out: Sequence[Row], logs: Logs):
        self.run, self.recipe, self.logs = run, recipe, logs
        self.seed_number = run.saving.context["seed_number"]
        self.feed = source.feed(run.seed, recipe.episodes)
        self.to_score = list(run.tasks.values())
        self.response = recipe.drift.response(run.seed) if recipe.drift is not None else None
        self.reaction = Reaction()
        self.held_out = names_of_all(held_out)
        self.episodes, self.evaluations = logs[EPISODES], logs[EVALUATIONS]
        n_expected = recipe.episodes if recipe.boundary == BY_TYPE else min(recipe.boundary, recipe.episodes)
        self.arriving = Arriving(self._next, self._learned, n_expected)
        self.pending: Row | None = None  # given by the feed, and not begun yet
        self.n_done = self.scored_at = 0
        self._checked: int | None = None  # entries of the structure's log when a saved adapter was last loaded back
        self._asked_at: float | None = None  # when the present task's first problem was asked for
        self._ended_at: float | None = None  # when there was none left

    def go(self, *, resumed: bool) -> None:
        """Learn all episodes, from the start or from the newest checkpoint."""
        self.run.saving.when_paused = self.feed.stop
        for task in self.to_score:
            self.run.inspect(task)
        self.run.learner.tell_choices(self.run)
        training = self._restore() if resumed else None
        if not resumed:
            self._score()
            self._save()
        while training is not None or self._peek() is not None:
            if training is None:
                self._pause_if_asked()
            name = training["task"] if training else self._task_name(self.pending)
            if training is None:
                self.arriving.rows, self.reaction = [], replace(self.reaction, end_segment=False)
            self.run.tasks[name] = self._task(name)
            self._learn(self.run.tasks[name], training["learner"] if training else None)
            training = None
            self.run.position += 1
            self._score_when_due()
            self._keep()
        if not self.n_done:
            way_out = f"Give it some, then: everlearn resume {self.run.saving.folder}"
            raise StreamError(describe("source", "gave no problem to learn from", self.recipe.source, way_out))
        if self.scored_at < self.n_done:
            self._score()
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
        """Return the problem that comes next, without beginning it."""
        if self.pending is None and self.n_done < self.recipe.episodes:
            self._pause_if_asked()
            due = self.run.saving.unsaved_for()
            if due is not None and not self.feed.wait(due):
                self._save()
            try:
                row = self.feed.next()
                if row is not None:
                    check_problem(row)
                    check_apart(row, self.held_out)
            except EverlearnError:
                self._checkpoint()  # as it was before this row: it is met again after a resume
                raise
            self.pending = row
            if row is None:
                self._pause_if_asked()
        return self.pending

    def _next(self) -> Row | None:
        """Return the next problem of the present task, or None where the task ends.

        Scorings wait for it: one on a task's end sees what the strategies leave in the model then.
        """
        if self._asked_at is None:
            self._asked_at = time.perf_counter()
        row, rows = self._peek(), self.arriving.rows
        if row is None or (rows and self._is_boundary(rows, row)):
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

    def _is_boundary(self, rows: list[Row], row: Row) -> bool:
        if self.reaction.end_segment:
            return True
        if self.recipe.boundary == BY_TYPE:
            return self._task_name(row) != self._task_name(rows[-1])
        return len(rows) >= self.recipe.boundary

    def _task_name(self, row: Row) -> str:
        name = type_of(row) if self.recipe.boundary == BY_TYPE else STREAM
        return f"{name}, {self.reaction.task} drifts on" if self.reaction.task else name

    def _task(self, name: str) -> Task:
        """Return the task that begins: its rows are still to come."""
        known = next((task for task in self.to_score if task.name == name), self.to_score[0])
        return replace(known, name=name, train=self.arriving)

    def _learned(self, episode: Episode) -> None:
        self.n_done += 1
        self.feed.answered(episode.row, episode.right_before)
        if self.response is not None:
            watched = self.recipe.drift.error_of(episode.right_before, episode.loss)
            self.reaction = self.response.observe(watched)
            self.arriving.rate_factor = self.reaction.rate_factor
        self.episodes.append(self._line(episode), sync=False)
        self.run.listener.episode(self.n_done, self.recipe.episodes, episode)
        self._keep()

    def _line(self, episode: Episode) -> dict[str, Any]:
        row = episode.row
        return {
            "seed": self.run.seed,
            "episode": self.n_done,
            "type": row.get("type", ""),
            "difficulty": row.get("difficulty"),
            "question": row["prompt"],
            "answer": row["completion"].strip(),
            "before": episode.before.strip(),
            "after": None if episode.after is None else episode.after.strip(),
            "correct": episode.right_before,
            "correct_after": episode.right_after,
            "loss": episode.loss,
            "learning_rate": episode.learning_rate,
            "drift": self.reaction.drift,
            "seconds": round(episode.seconds, 4),
        }

    def _score_when_due(self) -> None:
        if self.n_done % self.recipe.evaluation.interval == 0 and self.scored_at < self.n_done:
            self._score()

    def _score(self) -> None:
        """Score the held-out problems and keep the adapter as it is."""
        started = time.perf_counter()
        outcomes = [right for task in self._as_learned() for right in self.run.score(task).outcomes]
        self.scored_at = self.n_done
        line = {
            "type": "evaluation",
            "seed": self.run.seed,
            "episode": self.n_done,
            "outcomes": [int(right) for right in outcomes],
            "strategy_bytes": {s.name: s.state_bytes() for s in self.run.strategies},
            "seconds": round(time.perf_counter() - started, 4),
        }
        self.evaluations.append(line)
        accuracy = sum(outcomes) / len(outcomes)
        self.run.accelerator.log({"accuracy": accuracy, "episode": self.n_done}, step=self.run.n_logged)
        self.run.listener.evaluated(self.n_done, accuracy)
        if self.n_done and not unknown_layers(self.run.model.network):
            self._save_adapter()

    def _as_learned(self) -> list[Task]:
        """Return the held-out tasks; in a stream of one, under the name of the task that is being learned."""
        if self.recipe.boundary == BY_TYPE or not self.run.learned:
            return self.to_score
        return [replace(self.to_score[0], name=self.run.current or self.run.learned[-1])]

    def _save_adapter(self) -> None:
        folder = self.run.saving.folder
        if len(self.recipe.all_seeds()) > 1:
            folder = folder / f"seed-{self.run.seed}"
        structure = len(self.run.model.adapters.log)
        checked_on = None if structure == self._checked else self.to_score[0]  # once a structure: it loads the model
        try:
            save_trained(self.run.model, folder / f"checkpoint_ep{self.n_done}", checked_on)
        except ModelError as error:  # learning is worth more than its copy
            self.run.note(str(error))
            return
        self._checked = structure
        kept = sorted(folder.glob("checkpoint_ep*"), key=lambda path: int(path.name.removeprefix("checkpoint_ep")))
        for old in kept[: -self.recipe.keep_checkpoints]:
            shutil.rmtree(old)

    def _keep(self) -> None:
        """Lay ready what a checkpoint holds besides model, strategies and learner."""
        self.run.saving.context = {
            "seed_number": self.seed_number,
            "n_done": self.n_done,
            "scored_at": self.scored_at,
            "rows": self.arriving.rows,
            "pending": self.pending,
            "feed": self.feed.state(),
            "drift": None if self.response is None else [self.response.state(), asdict(self.reaction)],
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
        self.arriving.rows = context["rows"]
        self.feed.load_state(context["feed"])
        self.run.learner.moments_ = context["moments"]
        self.run.learner.n_rows_ = context.get("n_rows", 0)  # checkpoints of before don't tell
        if self.run.accelerator.scaler is not None:
            self.run.accelerator.scaler.load_state_dict(context["scaler"])
        if self.response is not None:
            state, reaction = context["drift"]
            self.response.load_state(state)
            self.reaction = Reaction(**reaction)
            self.arriving.rate_factor = self.reaction.rate_factor
        return training

"""Rows with labels, tags or numbers that are learned as they come, each scored before it is learned."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from everlearn.errors import ConfigError, describe
from everlearn.evaluation.prequential import SCORES, Prequential
from everlearn.kinds.online.recipe import OnlineRecipe
from everlearn.kinds.online.session import STREAM, Logs, Session
from everlearn.models.adapters import Scale
from everlearn.streams.feeds import LiveSource, RowsFeed
from everlearn.streams.labels import tag_names
from everlearn.types import Episode, Row, Task
from everlearn.way import Run

N_FIRST = 20  # rows by which the scale of numbers is set


def stream_task(source: LiveSource) -> Task:
    """Return what is learned of a source's rows, before any came.

    Raises:
        ConfigError: if problems are held out.
    """
    if source.held_out_path is not None:
        way_out = "Leave it out: every row is scored before it is learned"
        what = "labelled rows have no held-out ones"
        raise ConfigError(describe("source.held_out_path", what, source.held_out_path, way_out))
    return Task(name=STREAM, kind=source.kind, train=[], evaluation=[], labels=tuple(source.labels))


class LabelledSession(Session):
    """The labelled rows of one run.

    A label that the model's outputs lack ends the task, so that every strategy consolidates before the head grows; its
    row is answered before that. So is the first row of a stream of numbers, which the first scale is taken from.
    """

    feed: RowsFeed

    def __init__(self, run: Run, recipe: OnlineRecipe, source: LiveSource, logs: Logs):
        super().__init__(run, recipe, source, logs)
        self.known = run.tasks[STREAM]
        self.scores: Prequential = SCORES[source.kind](recipe.evaluation.fading)
        self.n_labels = len(source.labels)  # that the outputs have room for
        self.first: list[float] = []  # numbers of the first rows, which set the scale
        self.is_scaled = False
        self.n_drifts = 0
        self.seconds = self.learning_rate = 0.0  # of all episodes; of the last
        self.loss: float | None = None  # faded mean

    def arrived(self, row: Row) -> Row | None:
        found = super().arrived(row)
        if found is not None and "answered" not in found and self._n_needed(found) > self.n_labels:
            return {**found, "answered": self.answer(found)}
        return found

    def is_boundary(self, last: Row, row: Row) -> bool:
        scale_is_due = len(self.first) == N_FIRST and not self.is_scaled
        return super().is_boundary(last, row) or self._n_needed(row) > self.n_labels or scale_is_due

    def task(self, name: str) -> Task:
        if self.pending is not None:
            self.n_labels = max(self.n_labels, self._n_needed(self.pending))
        labels = self.feed.joining.labels[: self.n_labels]
        made = replace(self.known, name=name, labels=labels, train=self.arriving)
        if made.kind == "score":
            self._set_scale(made)
        for other, task in self.run.tasks.items():  # one head: what a number stands for is the same in all
            self.run.tasks[other] = replace(task, labels=labels)
        return made

    def told(self, episode: Episode) -> dict[str, Any]:
        row, labels = episode.row, self.feed.joining.labels
        self.scores.add(row, episode.before, labels)
        if self.reaction.drift:
            self.n_drifts += 1
            self.evaluations.append({"type": "drift", "seed": self.run.seed, "episode": self.n_done})
        self.seconds, self.learning_rate = self.seconds + episode.seconds, episode.learning_rate
        fading = self.recipe.evaluation.fading
        self.loss = episode.loss if self.loss is None else fading * self.loss + (1 - fading) * episode.loss
        if self.known.kind == "score" and len(self.first) < N_FIRST:
            self.first.append(row["score"])
        answers = {"answer": self._right(row), "before": episode.before, "after": episode.after}
        named = {"id": row["id"]} if "id" in row else {}
        return named | (answers if self.recipe.evaluation.answers else {})

    def score(self) -> None:
        """Write down the scores of the rows that came so far."""
        self.scored_at = self.n_done
        if not self.n_done:
            return
        found, joining = self.scores.scores(), self.feed.joining
        interval = self.scores.interval(self.n_done)
        ends = {end: None if math.isnan(at) else at for end, at in (("low", interval.low), ("high", interval.high))}
        main = {"name": self.scores.main, "value": interval.value, **ends}
        line = {
            "type": "prequential",
            "seed": self.run.seed,
            "episode": self.n_done,
            "main": main,
            **found,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "labels": list(self.feed.joining.labels[: self.n_labels]),
            "n_drifts": self.n_drifts,
            "n_waiting": len(joining.waiting),
            "n_given_up": joining.n_given_up,
            "n_unmatched": joining.n_unmatched,
            "strategy_bytes": {s.name: s.state_bytes() for s in self.run.strategies},
            "seconds": round(self.seconds, 4),
        }
        self.evaluations.append(line)
        faded = found["faded"][self.scores.main]
        self.run.accelerator.log({self.scores.main: faded, "episode": self.n_done}, step=self.run.n_logged)
        self.run.listener.prequential(self.n_done, self.scores.main, interval.value, faded)

    def more(self) -> dict[str, Any]:
        return {
            "scores": self.scores.state(),
            "n_labels": self.n_labels,
            "first": list(self.first),
            "is_scaled": self.is_scaled,
            "n_drifts": self.n_drifts,
            "learned_s": self.seconds,
            "mean_loss": self.loss,
            "last_rate": self.learning_rate,
        }

    def load_more(self, saved: Mapping[str, Any]) -> None:
        self.scores.load_state(saved["scores"])
        self.n_labels, self.n_drifts = saved["n_labels"], saved["n_drifts"]
        self.first, self.is_scaled = saved["first"], saved["is_scaled"]
        self.seconds, self.loss, self.learning_rate = saved["learned_s"], saved["mean_loss"], saved["last_rate"]

    def _n_needed(self, row: Row) -> int:
        """Return how many labels the outputs must have for a row, or numbers."""
        if self.known.kind == "score":
            return 1
        return 1 + (row["label"] if self.known.kind == "classify" else max(row["tags"]))

    def _right(self, row: Row) -> Any:
        """Return a row's right answer as it is written down."""
        labels = self.feed.joining.labels
        if self.known.kind == "tag":
            return tag_names(row["tags"], labels)
        return row["score"] if self.known.kind == "score" else labels[row["label"]]

    def _set_scale(self, task: Task) -> None:
        """Set the mean and deviation by which the network sees numbers: those of the first rows, once they came; until
        then the first number, and its size or 1."""  # fmt: skip
        numbers = self.first or ([] if self.pending is None else [self.pending["score"]])
        scale = Scale(numbers[0], max(1.0, abs(numbers[0]))) if numbers else None
        if len(numbers) == N_FIRST:
            scale, self.is_scaled = Scale.of(numbers), True
        if scale is not None and self.run.model.adapters.scales.get(task.name) != scale:
            self.run.add_labels(task)
            self.run.model.adapters.do("scale", task=task.name, mean=scale.mean, std=scale.std)

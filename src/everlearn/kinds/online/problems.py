"""Problems that are answered and learned one after another, with held-out ones that are scored now and then."""

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from everlearn.errors import ModelError, StreamError, describe
from everlearn.kinds.online.recipe import BY_TYPE, OnlineRecipe
from everlearn.kinds.online.session import Logs, Session
from everlearn.models.export import save_trained, unknown_layers
from everlearn.streams.delayed import is_question
from everlearn.streams.source import Source, check_problem, names_of
from everlearn.types import Episode, Row, Task
from everlearn.way import Run


def check_apart(row: Row, held_out: set[tuple[str, str]]) -> None:
    """Raise StreamError if a row to be learned is the same problem as one of those held out: `names_of` them all."""
    if names_of(row) & held_out:
        way_out = "Take it out of the problems to learn from, or hold out others"
        raise StreamError(describe("online", "a held-out problem comes up for learning", row["prompt"], way_out))


def names_of_all(rows: Iterable[Row]) -> set[tuple[str, str]]:
    """Return the names of all problems."""
    return {name for row in rows for name in names_of(row)}


class ProblemSession(Session):
    """The problems of one run."""

    def __init__(self, run: Run, recipe: OnlineRecipe, source: Source, held_out: Sequence[Row], logs: Logs):
        super().__init__(run, recipe, source, logs)
        self.to_score = list(run.tasks.values())
        self.held_out = names_of_all(held_out)
        self._checked: int | None = None  # entries of the structure's log when a saved adapter was last loaded back

    def tell(self) -> None:
        for task in self.to_score:
            self.run.inspect(task)

    def check(self, row: Row) -> None:
        if not is_question(row):
            check_problem(row)
        check_apart(row, self.held_out)

    def task(self, name: str) -> Task:
        known = next((task for task in self.to_score if task.name == name), self.to_score[0])
        return replace(known, name=name, train=self.arriving)

    def told(self, episode: Episode) -> dict[str, Any]:
        row = episode.row
        texts = {
            "question": row["prompt"],
            "answer": row["completion"].strip(),
            "before": episode.before.strip(),
            "after": None if episode.after is None else episode.after.strip(),
        }
        kind = {"type": row.get("type", ""), "difficulty": row.get("difficulty")}
        return kind | (texts if self.recipe.evaluation.answers else {})

    def score(self) -> None:
        """Score the held-out problems and keep the adapter as it is."""
        started = time.perf_counter()
        scores = [self.run.score(task) for task in self._as_learned()]
        outcomes = [right for score in scores for right in score.outcomes]
        self.scored_at = self.n_done
        line = {
            "type": "evaluation",
            "seed": self.run.seed,
            "episode": self.n_done,
            "outcomes": [int(right) for right in outcomes],
            "answers": [answer for score in scores for answer in score.answers],
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

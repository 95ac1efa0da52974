"""Who is told how a run goes on."""

import warnings
from collections.abc import Sequence

from everlearn.types import Episode, Score, Task


class Listener:
    """Is told how a run goes on; the base only passes on notes. `everlearn.report.progress` draws bars."""

    told: Sequence[str] = ()  # the notes that the user has seen

    def part(self, name: str) -> None:
        """One of several runs begins."""

    def encoding(self, task: Task, done: int, n_rows: int) -> None:
        """`done` of the rows that a task will be learned from were turned into tokens."""

    def training(self, task: Task, n_steps: int, done: int) -> None:
        """A task of `n_steps` optimizer steps begins; `done` of them are done (after a resume)."""

    def step(self, done: int, loss: float) -> None:
        """An optimizer step was taken."""

    def iteration(self, done: int, success: float) -> None:
        """A learner has answered problems and learned from it; a share of `success` of its answers was right."""

    def scoring(self, task: Task) -> None:
        """A task is about to be scored."""

    def scored(self, score: Score) -> None:
        """A task was scored."""

    def consolidating(self, task: Task) -> None:
        """The strategies consolidate a task."""

    def episode(self, done: int, n_episodes: int | None, episode: Episode) -> None:
        """An online learner has answered and learned a row. n_episodes: of them, at most; None: nobody knows."""

    def evaluated(self, done: int, accuracy: float) -> None:
        """An online learner was scored on all held-out problems, after `done` episodes."""

    def prequential(self, done: int, metric: str, whole: float, faded: float) -> None:
        """An online learner of labelled rows has scored `done` of them, each before it was learned."""

    def inform(self, text: str) -> None:
        """Something was decided that the user left open; there is nothing to do about it."""

    def note(self, text: str) -> None:
        """There is something that the user should know; a listener that shows nothing warns."""
        warnings.warn(text, UserWarning, stacklevel=2)

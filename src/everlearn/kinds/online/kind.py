"""Online runs: rows come one after another; each is answered and learned. Held-out problems are scored now and then;
labelled rows are scored as they come, before they are learned.

The engine is that of `everlearn.way`: a stretch of episodes is a task, with the hooks of every strategy around it.

Beside what every run leaves there are episodes.jsonl (a line an episode), evaluations.jsonl (a line a scoring),
questions.jsonl (answers to rows whose right answer comes later), and where problems are learned the trained adapters as
`checkpoint_ep<N>`, which peft loads (docs/online.md).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console, RenderableType

from everlearn.config import build_strategies
from everlearn.errors import ConfigError, describe
from everlearn.evaluation.answers import kept_text
from everlearn.kind import RunKind
from everlearn.kinds.online.labelled import LabelledSession, stream_task
from everlearn.kinds.online.problems import ProblemSession, check_apart, names_of_all
from everlearn.kinds.online.recipe import BY_TYPE, OnlineRecipe, is_labelled
from everlearn.kinds.online.session import STREAM, type_of
from everlearn.listener import Listener
from everlearn.models.load import load_model
from everlearn.provenance import Provenance
from everlearn.record import read_lines
from everlearn.registry import register
from everlearn.report.online_results import EPISODES, EVALUATIONS, QUESTIONS, online_results, read_online_run
from everlearn.report.prequential_results import is_prequential, prequential_results, read_prequential_run
from everlearn.saving import Saving
from everlearn.streams.delayed import is_question
from everlearn.streams.feeds import LiveSource
from everlearn.streams.source import Source, check_problem
from everlearn.types import Row, Task
from everlearn.way import Run


@register("run", "online")
class Online(RunKind):
    """Learn from one problem after another as they come, scoring held-out ones now and then."""

    recipe_type = OnlineRecipe
    log_names = (EPISODES, EVALUATIONS, QUESTIONS)

    @classmethod
    def tells(cls, content: Mapping[str, Any]) -> bool:
        return "source" in content

    @classmethod
    def write(cls, recipe: OnlineRecipe) -> dict[str, Any]:
        return recipe.as_mapping()

    @classmethod
    def bars(cls, console: Console, title: str = "") -> AbstractContextManager[Listener]:
        from everlearn.report.progress import OnlineBar

        return OnlineBar(console)

    def devices(self) -> dict[str, Any]:
        return {**super().devices(), "precision": self.recipe.learner.precision}

    def open(self, accelerator: Accelerator) -> Provenance:
        self.source = self.recipe.build_source()
        if isinstance(self.source, LiveSource):
            self.source = self.source.settled()
        self.recipe = self.recipe.settled(self.source)
        if is_labelled(self.source):
            self.held_out, self.tasks = [], [stream_task(self.source)]
        else:
            self._hold_out()
        return Provenance.of(self.tasks, self.recipe.model)

    def _hold_out(self) -> None:
        """Read the held-out problems, as tasks to score."""
        self.held_out = self.source.held_out(self.recipe.evaluation.n)
        if not self.held_out:
            way_out = "Let its held_out return some"
            raise ConfigError(describe("source", "holds no problem out", self.recipe.source, way_out))
        for row in self.held_out:
            check_problem(row)
        for seed in self.recipe.all_seeds():
            check_separate(self.source, self.held_out, seed, self.recipe.episodes)
        self.tasks = _tasks(self.recipe, self.source, self.held_out)
        self.held_out = [row for task in self.tasks for row in task.evaluation]  # in the order in which they are scored

    def begun(self) -> Provenance | None:
        path = self.out / EVALUATIONS
        header = next(iter(read_lines(path)), {})
        return Provenance.read(header["made_of"], str(path)) if "made_of" in header else None

    def begin(self, made_of: Provenance) -> None:
        items = [{"type": row.get("type", ""), "difficulty": row.get("difficulty")} for row in self.held_out]
        header = {"type": "header", "recipe": self.recipe.as_mapping(), "env": self.env, "items": items}
        if self.recipe.evaluation.answers:
            header["asked"] = [
                [kept_text(row["prompt"]), kept_text(row["completion"].strip())] for row in self.held_out
            ]
        self.logs[EVALUATIONS].append({**header, "made_of": asdict(made_of)})

    def start(self, seed: int, saving: Saving, accelerator: Accelerator) -> Run:
        return Run(
            model=load_model(self.recipe.model, self.tasks, seed),
            learner=self.recipe.build_learner(),
            strategies=build_strategies(self.recipe.strategies),
            accelerator=accelerator,
            seed=seed,
            tasks={task.name: task for task in self.tasks},
            saving=saving,
            eval_batch_size=self.recipe.evaluation.batch_size,
            keep_answers=self.recipe.evaluation.answers,
            listener=self.listener,
        )

    def learn(self, one: Run, *, resumed: bool) -> None:
        if is_labelled(self.source):
            session = LabelledSession(one, self.recipe, self.source, self.logs)
        else:
            session = ProblemSession(one, self.recipe, self.source, self.held_out, self.logs)
        with closing(session.feed):
            session.go(resumed=resumed)

    def summarise(self) -> dict[str, Any]:
        if is_labelled(self.source):
            return prequential_results(read_prequential_run(self.out))
        return online_results(read_online_run(self.out))

    @classmethod
    def draw(cls, folders: Mapping[str, Path], out: Path) -> list[RenderableType]:
        from everlearn.report.online_page import accuracy_grid, write_online_report
        from everlearn.report.prequential_page import scores_grid, write_prequential_report
        from everlearn.report.table import to_rich

        of_labels = {name: is_prequential(folder) for name, folder in folders.items()}
        if all(of_labels.values()):
            return [to_rich(scores_grid(write_prequential_report(folders, out))), f"\nReport: {out / 'report.html'}"]
        if any(of_labels.values()):
            way_out = "Compare runs of problems, or of labelled rows"
            raise ConfigError(describe("compare", "some runs have labelled rows and some don't", of_labels, way_out))
        return [to_rich(accuracy_grid(write_online_report(folders, out))), f"\nReport: {out / 'report.html'}"]


def check_separate(source: Source, held_out: Sequence[Row], seed: int, n_episodes: int) -> None:
    """Raise StreamError if a held-out problem is among those to be learned, as far as they are known beforehand.

    Every problem is looked at again when it comes.
    """
    names = names_of_all(held_out)
    feed = source.feed(seed, n_episodes)
    for row in feed.known(n_episodes):
        if not is_question(row):
            check_problem(row)
        check_apart(row, names)


def _tasks(recipe: OnlineRecipe, source: Source, held_out: Sequence[Row]) -> list[Task]:
    """Return the held-out problems as tasks: one a type where the stream is divided by type, else one."""
    by_name: dict[str, list[Row]] = {}
    for row in held_out:
        by_name.setdefault(type_of(row) if recipe.boundary == BY_TYPE else STREAM, []).append(row)
    return [
        Task(
            name=name, kind="prompt", train=[], evaluation=rows,
            verifier=source.verifier, max_new_tokens=source.max_new_tokens,
        )
        for name, rows in by_name.items()
    ]  # fmt: skip

"""A meta-learning recipe from start to end: for each seed and start, learn, then try it on the held-out tasks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import RenderableType

from everlearn.errors import ConfigError, describe
from everlearn.kind import RECIPE, RESULTS, RunKind, read_results
from everlearn.kinds.meta.recipe import MetaRecipe
from everlearn.kinds.meta.trials import try_start
from everlearn.learners.meta.learner import MetaLearner
from everlearn.processes import Processes
from everlearn.provenance import Provenance
from everlearn.registry import register
from everlearn.runs import keep_final
from everlearn.saving import Saving
from everlearn.types import Task

OLD_RECIPE = "meta.yaml"  # what the recipe's copy was called before
SCHEMA = 1


@dataclass
class MetaSeed:
    """One seed's learning. learner: that of the start `meta`, once it has learned."""

    seed: int
    saving: Saving
    processes: Processes
    learner: MetaLearner | None = None

    def state(self) -> dict[str, Any] | None:
        return None if self.learner is None else self.learner.state()


@register("run", "meta")
class Meta(RunKind):
    """Learn to learn from some tasks; show what a few steps then do on tasks held out, beside a plain start.

    `results.json` holds {schema, complete, recipe, env, scores, summary}: a line for each seed, start, held-out task
    and number of steps; `final/seed-N` the state of each seed's `MetaLearner`; `meta.png` the curves.
    """

    recipe_type = MetaRecipe

    def __init__(self, recipe: MetaRecipe, out: Path, listener: Any):
        super().__init__(recipe, out, listener)
        self.done: list[list[Any]] = []  # the [seed, start] that are finished
        self.scores: list[dict[str, Any]] = []  # their lines

    @classmethod
    def tells(cls, content: Mapping[str, Any]) -> bool:
        return "held_out" in content

    @classmethod
    def recipe_file(cls, folder: Path) -> Path:
        return folder / (OLD_RECIPE if (folder / OLD_RECIPE).is_file() else RECIPE)

    @classmethod
    def write(cls, recipe: MetaRecipe) -> dict[str, Any]:
        return asdict(recipe)

    def open(self, accelerator: Accelerator) -> Provenance:
        self.learned_from, self.held_out = self.recipe.tasks()
        return Provenance.of([*self.learned_from, *self.held_out], self.recipe.model)

    def begin(self, made_of: Provenance) -> None:
        for note in dict.fromkeys(note for task in (*self.learned_from, *self.held_out) for note in task.notes):
            self.listener.note(note)
        super().begin(made_of)

    def start(self, seed: int, saving: Saving, accelerator: Accelerator) -> MetaSeed:
        return MetaSeed(seed, saving, Processes(accelerator))

    def learn(self, one: MetaSeed, *, resumed: bool) -> None:
        training = self._restore(one) if resumed else None
        for start in self.recipe.starts:
            if [one.seed, start] not in self.done:
                one.saving.pause_if_asked()
                self._learn_start(one, start, training)
                training = None

    def summarise(self) -> dict[str, Any]:
        from everlearn.report.meta import summarise_meta

        head = {"schema": SCHEMA, "complete": True, "recipe": asdict(self.recipe), "env": self.env}
        return {**head, "summary": summarise_meta(self.scores), "scores": self.scores}

    @classmethod
    def draw(cls, folders: Mapping[str, Path], out: Path) -> list[RenderableType]:
        from everlearn.report.meta import meta_grid, write_meta_report
        from everlearn.report.table import to_rich

        for folder in folders.values():
            if not (folder / RESULTS).exists():
                way_out = f"Go on with it: everlearn resume {folder}"
                raise ConfigError(describe("compare", "there are no results in the folder yet", str(folder), way_out))
        summaries = {name: read_results(folder)["summary"] for name, folder in folders.items()}
        write_meta_report(summaries, out)
        return [*(to_rich(meta_grid(one)) for one in summaries.values()), f"\nReport: {out / 'report.html'}"]

    def _learn_start(self, one: MetaSeed, start: str, training: dict[str, Any] | None) -> None:
        """Learn one start and try it on the held-out tasks."""
        recipe, settings = self.recipe, asdict(self.recipe.learner_of(start))
        learner = MetaLearner(
            recipe.model, options=settings, seed=one.seed, device=recipe.device, listener=self.listener
        )  # fmt: skip
        learner.prepare([*self.learned_from, *self.held_out])
        if training is not None:
            learner.load_state(training, self.learned_from)
        n_left = (0 if start == "plain" else recipe.n_steps) - learner.n_steps
        if n_left:
            what = f"from {len(self.learned_from)} tasks ({start}, seed {one.seed})"
            self.listener.training(Task(what, self.learned_from[0].kind, (), ()), recipe.n_steps, learner.n_steps)
            learner.fit(self.learned_from, n_left, lambda at: self._after_step(one, at))
            self._save(one, learner)
        lines = []
        for task in self.held_out:
            self.listener.scoring(task)
            lines += try_start(learner, task, start, recipe.evaluation)
        if start == "meta":
            one.learner = learner
            keep_final(one, self.out, one.seed)
        self.scores += [{"seed": one.seed, **line} for line in lines]
        self.done.append([one.seed, start])
        self._save(one, None)

    def _after_step(self, one: MetaSeed, learner: MetaLearner) -> None:
        one.processes.accelerator.log({f"seed {one.seed}/loss": learner.loss}, step=learner.n_steps)
        one.saving.after_step(one.processes, lambda: self._save(one, learner))

    def _save(self, one: MetaSeed, learner: MetaLearner | None) -> None:
        training = None if learner is None else learner.state()
        one.saving.save(lambda: {"done": self.done, "scores": self.scores, "training": training}, one.processes)

    def _restore(self, one: MetaSeed) -> dict[str, Any] | None:
        state = one.saving.newest()
        self.done, self.scores = state["done"], state["scores"]
        return state["training"]

"""A meta-learning recipe from start to end: for each seed and start, learn, then try it on the held-out tasks."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from everlearn.config import write_yaml
from everlearn.errors import Paused, StateError, describe
from everlearn.learners.devices import start_accelerator
from everlearn.learners.meta.learner import MetaLearner
from everlearn.listener import Listener
from everlearn.meta.recipe import MetaRecipe, load_meta_recipe
from everlearn.meta.trials import try_start
from everlearn.models.load import with_dtype, with_template
from everlearn.provenance import Provenance
from everlearn.record import environment
from everlearn.report.meta import draw_meta, summarise_meta
from everlearn.report.style import save
from everlearn.saving import pause_on_interrupt
from everlearn.state import (
    beginning_in,
    checkpoints,
    clear_leftovers,
    load_state,
    pack,
    read_json,
    save_checkpoint,
    save_state,
    unpack,
    write_file,
    write_json,
)
from everlearn.types import Task

RECIPE, RESULTS, PICTURE = "meta.yaml", "results.json", "meta.png"
MADE_OF = "made_of.json"  # what `Provenance` tells of the tasks and the model
SCHEMA = 1


def run_meta(
    recipe: MetaRecipe | str | Path | Mapping[str, Any],
    out: str | Path,
    overrides: Sequence[str] = (),
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Learn to learn, and compare what a few steps on held-out tasks do; writes into the new folder `out`.

    `results.json` holds {schema, complete, recipe, env, scores, summary}: a line for each seed, start, held-out task
    and number of steps; `final/seed-N` the state of each seed's `MetaLearner`; `meta.png` the curves.

    Raises:
        ConfigError, StreamError, ModelError: before anything is trained. TrainingError: if the loss is not finite.
        Paused: after SIGINT, the state saved; `resume_meta` goes on.
    """
    recipe = recipe if isinstance(recipe, MetaRecipe) else load_meta_recipe(recipe, overrides)
    listener = listener or Listener()
    model = with_dtype(with_template(recipe.model), recipe.device, listener.note)
    recipe = replace(recipe, model=model)
    out = Path(out)
    with beginning_in(out):
        learned_from, held_out = recipe.tasks()
        made_of = Provenance.of([*learned_from, *held_out], recipe.model)
        for note in dict.fromkeys(note for task in (*learned_from, *held_out) for note in task.notes):
            (listener or Listener()).note(note)
        write_json(out / MADE_OF, asdict(made_of))
        write_file(out / RECIPE, write_yaml(asdict(recipe)).encode())
        return _Course(recipe, out, listener or Listener()).go()


def resume_meta(out: str | Path, listener: Listener | None = None) -> dict[str, Any]:
    """Go on with a run that was paused or killed, from its newest checkpoint, to the same end.

    Raises:
        StateError: if there is no such run, its state is damaged, or its rows or its model's files are others now.
    """
    out = Path(out)
    if not is_meta_run(out):
        way_out = "Name the folder of a run of everlearn meta"
        raise StateError(describe("resume", "there is no meta-learning in the folder", str(out), way_out))
    if (out / RESULTS).exists():
        return read_json(out / RESULTS)
    clear_leftovers(out)
    recipe = load_meta_recipe(out / RECIPE)
    if (out / MADE_OF).exists():
        learned_from, held_out = recipe.tasks()
        begun = Provenance(**read_json(out / MADE_OF))
        Provenance.of([*learned_from, *held_out], recipe.model).check_same(begun)
    return _Course(recipe, out, listener or Listener()).go()


def is_meta_run(out: Path) -> bool:
    """Tell whether the folder is one of `everlearn meta`."""
    return (out / RECIPE).exists()


@dataclass
class _Course:
    """One run on its way. `done`: the [seed, start] that are finished; `scores`: their lines."""

    recipe: MetaRecipe
    out: Path
    listener: Listener
    done: list[list[Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    pause_requested: bool = False
    when_paused: Callable[[], None] = lambda: None  # what Ctrl-C calls; a step ends soon by itself
    _saved_at: float = field(default_factory=time.monotonic)
    _steps_since_save: int = 0

    def go(self) -> dict[str, Any]:
        """Do what isn't done yet, and write the results."""
        learned_from, held_out = self.recipe.tasks()
        training = self._restore()
        with pause_on_interrupt(self):
            for seed in self.recipe.seeds:
                for start in self.recipe.starts:
                    if [seed, start] in self.done:
                        continue
                    if self.pause_requested:
                        raise Paused(str(self.out))
                    self._one(seed, start, learned_from, held_out, training)
                    training = None
        env = environment(start_accelerator(device=self.recipe.device).device)
        summary = summarise_meta(self.scores)
        head = {"schema": SCHEMA, "complete": True, "recipe": asdict(self.recipe), "env": env}
        results = {**head, "summary": summary, "scores": self.scores}
        save(draw_meta(summary), self.out / PICTURE)
        write_json(self.out / RESULTS, results)
        return results

    def _one(
        self, seed: int, start: str, learned_from: list[Task], held_out: list[Task], training: dict[str, Any] | None
    ) -> None:
        """Learn one start and try it on the held-out tasks."""
        settings = asdict(self.recipe.learner_of(start))
        learner = MetaLearner(
            self.recipe.model, options=settings, seed=seed, device=self.recipe.device, listener=self.listener
        )  # fmt: skip
        learner.prepare([*learned_from, *held_out])
        if training is not None:
            learner.load_state(training, learned_from)
        n_left = (0 if start == "plain" else self.recipe.n_steps) - learner.n_steps
        if n_left:
            name = Task(f"from {len(learned_from)} tasks ({start}, seed {seed})", learned_from[0].kind, (), ())
            self.listener.training(name, self.recipe.n_steps, learner.n_steps)
            learner.fit(learned_from, n_left, self._after_step)
            self._save(learner)
        lines = []
        for task in held_out:
            self.listener.scoring(task)
            lines += try_start(learner, task, start, self.recipe.evaluation)
        if start == "meta":
            tensors: dict[str, torch.Tensor] = {}
            folder = self.out / "final" / f"seed-{seed}"
            folder.parent.mkdir(exist_ok=True)
            if not folder.exists():
                save_state(folder, tensors, pack(learner.state(), tensors, "learner"))
        self.scores += [{"seed": seed, **line} for line in lines]
        self.done.append([seed, start])
        self._save(None)

    def _after_step(self, learner: MetaLearner) -> None:
        due, self._steps_since_save = self.recipe.checkpoint, self._steps_since_save + 1
        by_steps = due.every_steps is not None and self._steps_since_save >= due.every_steps
        by_time = due.every_s is not None and time.monotonic() - self._saved_at >= due.every_s
        if by_steps or by_time or self.pause_requested:
            self._save(learner)
        if self.pause_requested:
            raise Paused(str(self.out))

    def _save(self, learner: MetaLearner | None) -> None:
        self._saved_at, self._steps_since_save = time.monotonic(), 0
        tensors: dict[str, torch.Tensor] = {}
        training = None if learner is None else learner.state()
        values = pack({"done": self.done, "scores": self.scores, "training": training}, tensors, "course")
        save_checkpoint(self.out / "checkpoints", tensors, values)

    def _restore(self) -> dict[str, Any] | None:
        saved = checkpoints(self.out / "checkpoints")
        if not saved:
            return None
        tensors, values = load_state(saved[-1])
        values = unpack(values, tensors)
        self.done, self.scores = values["done"], values["scores"]
        return values["training"]

"""The frame of a run of any kind: its folder, seeds, saving, pauses, going on, results; and the plain kind of run, the
loop over a stream's tasks: learn one, score all seen, record, save."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from rich.console import RenderableType

from everlearn.config import Recipe, read_content, write_yaml
from everlearn.errors import ConfigError, StateError, describe
from everlearn.evaluation.abilities import Abilities
from everlearn.evaluation.score import metric_names
from everlearn.kind import RECIPE, RESULTS, Folder, Learning, RunKind, read_results
from everlearn.learners.devices import start_accelerator, start_trackers
from everlearn.listener import Listener
from everlearn.models.load import load_model, with_dtype, with_template
from everlearn.provenance import Provenance, read_begun
from everlearn.record import JsonLines, Recorder, environment
from everlearn.registry import find, names, register
from everlearn.report.items import keep_items
from everlearn.saving import Saving, pause_on_interrupt
from everlearn.shards import gathered
from everlearn.state import (
    beginning_in,
    checkpoints,
    clear_leftovers,
    clear_unnamed,
    load_state,
    save_value,
    write_file,
    write_json,
)
from everlearn.streams.schedule import Schedule, apply_schedule, checked_stream
from everlearn.types import Cost, Task, TaskResult
from everlearn.way import Run

if TYPE_CHECKING:
    from everlearn.report.table import Grid
    from everlearn.report.views import RunView

PLAIN = "supervised"
LOG = "results.jsonl"


def run(
    recipe: Any, out: str | Path, overrides: Sequence[str] = (), listener: Listener | None = None
) -> dict[str, Any]:
    """Do what a recipe of any kind says, once a seed, in the new folder `out`.

    Args:
        recipe: a recipe, its YAML file, or its mapping; `kind:` names its kind, without one its keys tell.
        overrides: `a.b=value`, values read as YAML.

    Returns:
        The content of results.json (docs/results-schema.md); empty on all processes but the first.

    Raises:
        ConfigError, StreamError, ModelError: before anything is trained. TrainingError: if the loss is not finite.
        Paused: after SIGINT, the state saved; `resume` goes on.
    """
    kind, recipe = read_recipe(recipe, overrides)
    listener = listener or Listener()
    if not issubclass(kind, RunKind):
        return kind.run(recipe, Path(out), listener)
    model = with_dtype(with_template(recipe.model), recipe.device, listener.note)
    with beginning_in(Path(out)):
        return _go(kind(replace(recipe, model=model), Path(out), listener))


def resume(out: str | Path, listener: Listener | None = None) -> Any:
    """Go on with what was paused or killed, from its newest checkpoint, to the same end as if it never stopped.

    Returns:
        The content of results.json; of a home or an advice, its report.

    Raises:
        StateError: if nothing was begun there, its state is damaged, or its rows or its model's files are others now.
    """
    kind = folder_kind(Path(out))
    if not issubclass(kind, RunKind):
        return kind.resume(Path(out), listener or Listener())
    if is_finished(Path(out)):
        return read_results(Path(out))
    recipe = kind.read(_without_kind(read_content(kind.recipe_file(Path(out)))))
    return _go(kind(recipe, Path(out), listener or Listener()))


def run_or_resume(
    recipe: Any, out: str | Path, overrides: Sequence[str] = (), listener: Listener | None = None
) -> dict[str, Any]:
    """Go on with the run in the folder `out` if one was begun there, else `run` the recipe."""
    if any(kind.holds(Path(out)) for kind in folder_kinds()):
        return resume(out, listener)
    return run(recipe, out, overrides, listener)


def is_finished(out: Path) -> bool:
    """Tell whether the folder holds a run that came to its end."""
    return (out / RESULTS).exists() and read_results(out)["complete"]


def drop_weights(folder: Path) -> None:
    """Delete what a finished run keeps beside its results: weights, memories, checkpoints."""
    for name in ("checkpoints", "final", "memory"):
        shutil.rmtree(folder / name, ignore_errors=True)


def read_recipe(source: Any, overrides: Sequence[str] = ()) -> tuple[type[Folder], Any]:
    """Return a recipe's kind, and the recipe read strictly.

    Args:
        source: a recipe, which is returned as it is; its YAML file; or its mapping.

    Raises:
        ConfigError: if the file can't be read, or anything in it is unknown, of the wrong type or out of range.
    """
    if not isinstance(source, Mapping | str | Path):
        kind = next((kind for kind in folder_kinds() if kind.recipe_type is type(source)), None)
        if kind is None:
            way_out = "Give a recipe, its YAML file, or its mapping"
            raise ConfigError(describe("recipe", "is none of a kind of run", type(source).__name__, way_out))
        return kind, source
    content = read_content(source, overrides)
    named = content.get("kind")
    kind = next(k for k in run_kinds() if k.tells(content)) if named is None else find("run", named, "kind")
    return kind, kind.read(_without_kind(content))


def run_kinds() -> list[type[RunKind]]:
    """Return the kinds of run; the plain one, which takes what no other does, is the last."""
    kinds = [kind for kind in folder_kinds() if issubclass(kind, RunKind)]
    return sorted(kinds, key=lambda kind: kind.name == PLAIN)


def folder_kinds() -> list[type[Folder]]:
    """Return the kinds of folder that one can go on with."""
    return [find("run", name) for name in names("run")]


def folder_kind(folder: Path) -> type[Folder]:
    """Return what kind of folder this is.

    Raises:
        StateError: if nothing was begun there.
    """
    others = [kind for kind in folder_kinds() if not issubclass(kind, RunKind)]  # an advice holds a recipe as well
    for kind in (*others, *run_kinds()):
        if kind.holds(folder):
            return kind
    if (folder / RECIPE).is_file():
        return find("run", read_content(folder / RECIPE).get("kind"), f"{folder / RECIPE}: kind")
    way_out = "Name the folder of a run, an advice or a home; everlearn run starts a new one"
    raise StateError(describe("folder", "there is no run in the folder", str(folder), way_out))


def _without_kind(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "kind"}


def _go(kind: RunKind) -> dict[str, Any]:
    """Run what isn't done yet, and write the results."""
    recipe, out = kind.recipe, kind.out
    accelerator, context = _open(kind)
    scaler = accelerator.scaler
    scale = None if scaler is None else scaler.state_dict()
    seeds, done = recipe.all_seeds(), 0 if context is None else context.get("seed_number", 0)
    for number, seed in enumerate(seeds[done:], done):
        if scaler is not None:  # of fp16: each seed begins as the first did
            scaler.load_state_dict(scale)
        saving = Saving(out, recipe.checkpoint, {"seed_number": number})
        kind.keep_length(saving)
        one = kind.start(seed, saving, accelerator)
        with pause_on_interrupt(saving):
            kind.learn(one, resumed=context is not None and number == done)
        keep_final(one, out, seed, main=accelerator.is_main_process)
        if number + 1 < len(seeds):
            saving.pause_if_asked()
    if recipe.track:
        accelerator.end_training()
    if not accelerator.is_main_process:
        return {}
    results = kind.summarise()
    write_json(out / RESULTS, results)
    return results


def _open(kind: RunKind) -> tuple[Accelerator, dict[str, Any] | None]:
    """Start the processes, look at the data, begin or go on in the folder; return the newest checkpoint's context, None
    where there is no checkpoint."""  # fmt: skip
    recipe, out = kind.recipe, kind.out
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if kind.one_process and n_processes > 1:
        raise ConfigError(describe(kind.name, "learns in one process", n_processes, "Start it without torchrun"))
    accelerator = start_accelerator(**kind.devices(), track=tuple(recipe.track), folder=out)
    made_of = kind.open(accelerator)
    kind.logs = {name: JsonLines(out / name, active=accelerator.is_main_process) for name in kind.log_names}
    saved = checkpoints(out / "checkpoints")
    context = load_state(saved[-1])[1].get("context", {}) if saved else None
    lengths = [] if context is None else _lengths(kind, context.get("n_bytes", {}))
    for log, n_bytes in lengths:
        log.check_holds(n_bytes)
    if saved:
        made_of.check_same(kind.begun())
    accelerator.wait_for_everyone()  # all have looked into the folder before the first one writes
    if accelerator.is_main_process:
        clear_leftovers(out)
    kind.env = environment(accelerator.device)
    if context is None:
        _begin(kind, made_of, accelerator.is_main_process)
    for log, n_bytes in lengths:
        log.cut(n_bytes)  # a resumed run writes the lines after that again
    start_trackers(accelerator, out, {"recipe": write_yaml(kind.write(recipe))}, tuple(recipe.track))
    return accelerator, context


def _begin(kind: RunKind, made_of: Provenance, main: bool) -> None:
    """Write the recipe, and begin the logs."""
    if main:
        content = {"kind": kind.reference(), **kind.write(kind.recipe)}
        write_file(kind.out / RECIPE, write_yaml(content).encode())
        for name in kind.log_names:
            write_file(kind.out / name, b"")
        kind.begin(made_of)


def _lengths(kind: RunKind, n_bytes: int | Mapping[str, int]) -> list[tuple[JsonLines, int]]:
    """Return each log, and how long it was when the run was saved. A number alone is the length of the only log."""
    return [(log, n_bytes if isinstance(n_bytes, int) else n_bytes.get(name, 0)) for name, log in kind.logs.items()]


def keep_final(one: Learning, out: Path, seed: int, *, main: bool = True) -> None:
    """Keep a seed's final state, once: what export and a later comparison need. The main process writes it."""
    sharded = isinstance(one, Run) and one.processes.sharded
    if not main and not sharded:
        return
    folder = out / "final" / f"seed-{seed}"
    state = one.state() if sharded or not folder.exists() else None
    state = gathered(state) if sharded else state
    if main and state is not None and not folder.exists():
        save_value(folder, state, "run")


@register("run", PLAIN)
class Supervised(RunKind):
    """Learn the tasks of a stream one after another from rows with right answers, scoring all seen after each."""

    recipe_type = Recipe
    log_names = (LOG,)
    one_process = False

    @classmethod
    def tells(cls, content: Mapping[str, Any]) -> bool:
        return True

    @classmethod
    def holds(cls, folder: Path) -> bool:
        without_recipe = (folder / LOG).is_file() and not (folder / RECIPE).exists()  # as a trainer's plot leaves
        return without_recipe or super().holds(folder)

    @classmethod
    def write(cls, recipe: Recipe) -> dict[str, Any]:
        return asdict(recipe)

    def devices(self) -> dict[str, Any]:
        self.learner = self.recipe.build_learner()
        return {**super().devices(), "precision": self.learner.precision, "processes": self.recipe.processes}

    def open(self, accelerator: Accelerator) -> Provenance:
        self.recorder = Recorder(self.out / LOG, active=accelerator.is_main_process)
        tasks, self.schedules = open_schedules(self.recipe)
        self.abilities = Abilities.read(self.recipe.evaluation.abilities, tasks, self.recipe.model.head)
        self.made_of = Provenance.of(tasks, self.recipe.model)
        return self.made_of

    def begun(self) -> Provenance | None:
        return read_begun(self.out / LOG)

    def begin(self, made_of: Provenance) -> None:
        steps = {str(seed): [task.name for task in schedule.steps] for seed, schedule in self.schedules.items()}
        self.recorder.header(asdict(self.recipe), self.env, steps, made_of.model)

    def start(self, seed: int, saving: Saving, accelerator: Accelerator) -> Run:
        tasks = list(self.schedules[seed].stream)
        return Run(
            model=load_model(self.recipe.model, tasks, seed),
            learner=self.learner,
            strategies=self.recipe.build_strategies(),
            accelerator=accelerator,
            seed=seed,
            tasks={task.name: task for task in tasks},
            saving=saving,
            sharded=self.recipe.fsdp and accelerator.num_processes > 1,
            eval_batch_size=self.recipe.evaluation.batch_size,
            keep_answers=self.recipe.evaluation.answers,
            listener=self.listener,
        )

    def learn(self, one: Run, *, resumed: bool) -> None:
        """Learn the steps of one seed's schedule, scoring after each; begin with what the newest checkpoint holds."""
        schedule, saving, training, begin = self.schedules[one.seed], one.saving, None, 0
        self.abilities.make_in(one, self.out / "abilities")
        if one.keep_answers and one.processes.rank == 0:
            keep_items(self.out, one.seed, schedule.stream)
        if resumed:
            training = self.restore(one)
            begin = one.position
        elif saving.context["seed_number"] == 0:
            self._tell_of_data(one)
        if not resumed:
            self._score_all(one, list(schedule.stream) if self.recipe.evaluation.future else [], -1, None)
        for position in range(begin, len(schedule.steps)):
            task = schedule.steps[position]
            one.position = position
            if not (resumed and position == begin and training is None):
                cost = self.learn_task(one, task, training["learner"] if training else None)
                saving.context["cost"] = asdict(cost)
                training = None
                one.checkpoint()
                if one.processes.rank == 0:
                    saved = [*checkpoints(self.out / "checkpoints"), *(self.out / "final").glob("seed-*")]
                    clear_unnamed(one.memory, saved)
            started = time.perf_counter()
            seen = list(dict.fromkeys(step.name for step in schedule.steps[: position + 1]))
            scored = [t for t in schedule.stream if self.recipe.evaluation.future or t.name in seen]
            self._score_all(one, scored, position, task.name)
            cost = replace(Cost(**saving.context["cost"]), eval_s=time.perf_counter() - started)
            self.recorder.cost(one.seed, position, task.name, cost)
            self.keep_length(saving)

    def restore(self, one: Run) -> dict[str, Any] | None:
        """Load the newest checkpoint into what learns; return its `training`, or None between tasks."""
        return one.restore()

    def learn_task(self, one: Run, task: Task, saved: dict[str, Any] | None) -> Cost:
        """Learn a step of the schedule, from its start or from what was saved in mid-task."""
        return one.learn(task, saved)

    def summarise(self) -> dict[str, Any]:
        from everlearn.report.records import read_run
        from everlearn.report.results import build_results

        return build_results(read_run(self.out))

    @classmethod
    def draw(cls, folders: Mapping[str, Path], out: Path) -> list[RenderableType]:
        from everlearn.report.table import abilities_grid, compare_table, matrix_grid, to_rich
        from everlearn.report.views import load_views

        for folder in folders.values():
            if not (folder / LOG).exists():
                way_out = "Name folders of runs that have begun"
                raise ConfigError(describe("compare", "there are no results in the folder", str(folder), way_out))
        views = load_views(folders)
        own = cls.write_report(views, out)
        tables = [*(to_rich(matrix_grid(view)) for view in views), compare_table(folders)]
        kept = abilities_grid(views)
        tables += [] if kept is None else [to_rich(kept)]
        return [*tables, *map(to_rich, own), f"\nReport: {out / 'report.html'}"]

    @classmethod
    def write_report(cls, views: Sequence["RunView"], out: Path) -> list["Grid"]:
        """Write the report of runs that were read; return tables of the kind's own that a terminal shows too."""
        from everlearn.report.html import write_pages

        write_pages(views, out)
        return []

    def _tell_of_data(self, one: Run) -> None:
        """Tell the user what there is to know of a run's rows, and write down what they are."""
        for record in self.made_of.data:
            n_told, task = len(one.notes), one.tasks.get(record["task"])
            counts = one.inspect(task) if task is not None else {}  # a step that is no task has rows of tasks
            self.recorder.data({**record, "counts": counts, "notes": one.notes[n_told:]})
        self.keep_length(one.saving)

    def _score_all(self, one: Run, tasks: list[Task], after: int, trained: str | None) -> None:
        for task in tasks:
            one.saving.pause_if_asked()
            score = one.score(task)
            self.recorder.result(TaskResult(one.seed, after, trained, score))
            if one.accelerator.trackers:
                one.accelerator.log({f"score/{task.name}": score.value, "after": after}, step=one.n_logged)
        for score in self.abilities.measure(one):
            one.saving.pause_if_asked()
            self.recorder.ability(TaskResult(one.seed, after, trained, score))
            if one.accelerator.trackers:
                one.accelerator.log({f"ability/{score.task}": score.value, "after": after}, step=one.n_logged)
        if after < 0:
            self.keep_length(one.saving)


def open_schedules(recipe: Recipe) -> tuple[list[Task], dict[int, Schedule]]:
    """Return the tasks that a recipe learns, with all their rows, and each seed's schedule.

    Where the order is shuffled, it and the rows that `per_task` takes differ by seed.

    Raises:
        StreamError, ConfigError: if rows can't be read, a task trains on what another is measured on, or a metric
            doesn't fit its task.
    """
    options = recipe.schedule_options()
    stream = checked_stream(recipe.build_stream().build(), options.get("order"))
    if options.get("shuffle"):
        schedules = {seed: apply_schedule(stream, **options, seed=seed) for seed in recipe.all_seeds()}
    else:
        schedules = dict.fromkeys(recipe.all_seeds(), apply_schedule(stream, **options))
    learned = {task.name for task in next(iter(schedules.values())).stream}
    tasks = [task for task in stream if task.name in learned]
    for task in tasks:
        metric_names(task)
    return tasks, schedules

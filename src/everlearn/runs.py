"""The loop over tasks: learn one, score all seen, record, save; and going on from where a run was stopped."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from everlearn.config import Recipe, load_recipe, write_yaml
from everlearn.errors import Paused, StateError, describe
from everlearn.evaluation.score import metric_names
from everlearn.learners.devices import start_accelerator, start_trackers
from everlearn.listener import Listener
from everlearn.models.load import load_model, with_dtype, with_template
from everlearn.provenance import Provenance, read_begun
from everlearn.record import Recorder, environment
from everlearn.report.results import write_results
from everlearn.saving import Saving, pause_on_interrupt
from everlearn.state import (
    beginning_in,
    checkpoints,
    clear_leftovers,
    clear_unnamed,
    load_state,
    pack,
    read_json,
    save_state,
    write_file,
)
from everlearn.streams.schedule import Schedule, apply_schedule, checked_stream
from everlearn.types import Cost, Task, TaskResult
from everlearn.way import Run


def run(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path,
    overrides: Sequence[str] = (),
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Learn a recipe's stream, once a seed, and write results.jsonl and results.json into the new folder `out`.

    Args:
        recipe: a recipe, its YAML file, or its mapping.
        overrides: `a.b=value`, values read as YAML.

    Returns:
        The content of results.json (docs/results-schema.md); empty on all processes but the first.

    Raises:
        ConfigError, StreamError, ModelError: before anything is trained. TrainingError: if the loss is not finite.
        Paused: after SIGINT, the state saved; `resume` goes on.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    listener = listener or Listener()
    model = with_dtype(with_template(recipe.model), recipe.device, listener.note)
    recipe = replace(recipe, model=model)
    out = Path(out)
    with beginning_in(out):
        return _go(recipe, out, listener)


def resume(out: str | Path, listener: Listener | None = None) -> dict[str, Any]:
    """Go on with a run that was paused or killed, from its newest checkpoint, to the same end as if it never stopped.

    Raises:
        StateError: if there is no run, its state is damaged, or its rows or its model's files are others now.
    """
    out = Path(out)
    if not (out / "recipe.yaml").exists():
        way_out = "Name the folder of a run; everlearn run starts a new one"
        raise StateError(describe("resume", "there is no run in the folder", str(out), way_out))
    if is_finished(out):
        return read_json(out / "results.json")
    return _go(load_recipe(out / "recipe.yaml"), out, listener or Listener())


def run_or_resume(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path,
    overrides: Sequence[str] = (),
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Go on with the run in the folder `out` if one was begun there, else `run` the recipe."""
    if (Path(out) / "recipe.yaml").exists():
        return resume(out, listener)
    return run(recipe, out, overrides, listener)


def is_finished(out: Path) -> bool:
    """Tell whether the folder holds a run that came to its end."""
    return (out / "results.json").exists() and read_json(out / "results.json")["complete"]


def _go(recipe: Recipe, out: Path, listener: Listener) -> dict[str, Any]:
    track = tuple(recipe.track)
    learner = recipe.build_learner()
    accelerator = start_accelerator(
        precision=learner.precision, device=recipe.device, processes=recipe.processes, track=track, folder=out
    )
    main = accelerator.is_main_process
    recorder = Recorder(out / "results.jsonl", active=main)
    tasks, schedules = open_schedules(recipe)
    made_of = Provenance.of(tasks, recipe.model)
    saved = checkpoints(out / "checkpoints")
    if saved:
        made_of.check_same(read_begun(out / "results.jsonl"))
    context = load_state(saved[-1])[1]["context"] if saved else {"seed_number": 0, "n_bytes": 0}
    accelerator.wait_for_everyone()  # all have looked into the folder before the first one writes
    if main:
        clear_leftovers(out)
    if not saved:
        if main:
            write_file(out / "recipe.yaml", write_yaml(asdict(recipe)).encode())
            (out / "results.jsonl").unlink(missing_ok=True)
        steps = {str(seed): [task.name for task in schedule.steps] for seed, schedule in schedules.items()}
        recorder.header(asdict(recipe), environment(accelerator.device), steps, made_of.model)
    else:
        recorder.cut(context["n_bytes"])
    start_trackers(accelerator, out, {"recipe": write_yaml(asdict(recipe))}, track)
    for number, (seed, schedule) in enumerate(schedules.items()):
        if number < context["seed_number"]:
            continue
        tasks = list(schedule.stream)
        one = Run(
            model=load_model(recipe.model, tasks, seed),
            learner=learner,
            strategies=recipe.build_strategies(),
            accelerator=accelerator,
            seed=seed,
            tasks={task.name: task for task in tasks},
            saving=Saving(out, recipe.checkpoint, {"seed_number": number, "n_bytes": recorder.n_bytes()}),
            eval_batch_size=recipe.evaluation.batch_size,
            listener=listener,
        )
        if not saved and number == 0:
            _tell_of_data(one, made_of, recorder)
        with pause_on_interrupt(one.saving):
            going_on = bool(saved) and number == context["seed_number"]
            _learn_schedule(one, schedule, recipe, recorder, resumed=going_on)
        _keep_final(one, out)
        if one.saving.pause_requested and number + 1 < len(schedules):
            raise Paused(str(out))
    if track:
        accelerator.end_training()
    return write_results(out) if main else {}


def _tell_of_data(one: Run, made_of: Provenance, recorder: Recorder) -> None:
    """Tell the user what there is to know of a run's rows, and write down what they are."""
    for record in made_of.data:
        n_told = len(one.notes)
        counts = one.inspect(one.tasks[record["task"]])
        recorder.data({**record, "counts": counts, "notes": one.notes[n_told:]})
    one.saving.context["n_bytes"] = recorder.n_bytes()


def _learn_schedule(one: Run, schedule: Schedule, recipe: Recipe, recorder: Recorder, *, resumed: bool) -> None:
    """Learn the steps of one seed's schedule, scoring after each; begin with what the newest checkpoint holds."""
    training, begin = None, 0
    if resumed:
        training = one.restore()
        begin = one.position
    elif recipe.evaluation.future:
        _score_all(one, list(schedule.stream), -1, None, recorder)
        one.saving.context["n_bytes"] = recorder.n_bytes()
    for position in range(begin, len(schedule.steps)):
        task = schedule.steps[position]
        one.position = position
        if not (resumed and position == begin and training is None):
            cost = one.learn(task, training["learner"] if training else None)
            one.saving.context["cost"] = asdict(cost)
            training = None
            one.checkpoint()
            if one.processes.rank == 0:
                saved = [*checkpoints(one.saving.folder / "checkpoints"), *(one.saving.folder / "final").glob("seed-*")]
                clear_unnamed(one.memory, saved)
        started = time.perf_counter()
        seen = list(dict.fromkeys(step.name for step in schedule.steps[: position + 1]))
        scored = [t for t in schedule.stream if recipe.evaluation.future or t.name in seen]
        _score_all(one, scored, position, task.name, recorder)
        cost = replace(Cost(**one.saving.context["cost"]), eval_s=time.perf_counter() - started)
        recorder.cost(one.seed, position, task.name, cost)
        one.saving.context["n_bytes"] = recorder.n_bytes()


def _score_all(one: Run, tasks: list[Task], after: int, trained: str | None, recorder: Recorder) -> None:
    for task in tasks:
        if one.saving.pause_requested:
            raise Paused(str(one.saving.folder))
        score = one.score(task)
        recorder.result(TaskResult(one.seed, after, trained, score))
        if one.accelerator.trackers:
            one.accelerator.log({f"score/{task.name}": score.value, "after": after}, step=one.n_logged)


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


def _keep_final(one: Run, out: Path) -> None:
    """Keep the seed's final state: what export and a later comparison need."""
    folder = out / "final" / f"seed-{one.seed}"
    if one.processes.rank != 0 or folder.exists():
        return
    folder.parent.mkdir(exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    values = pack(one.state(), tensors, "run")
    save_state(folder, tensors, values)

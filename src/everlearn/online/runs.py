"""Online runs: problems come one after another; each is answered, learned, answered again; held-out ones are scored.

The engine is that of `everlearn.runs`: a stretch of episodes is a task, with the hooks of every strategy around it.
"""

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from everlearn.config import build_strategies, read_yaml, write_yaml
from everlearn.errors import ConfigError, Paused, StateError, describe
from everlearn.learners.devices import start_accelerator
from everlearn.listener import Listener
from everlearn.models.load import load_model, with_dtype, with_template
from everlearn.online.recipe import BY_TYPE, OnlineRecipe, load_online_recipe
from everlearn.online.session import STREAM, Session, check_apart, names_of_all, type_of
from everlearn.provenance import Provenance
from everlearn.record import JsonLines, environment
from everlearn.report.online_results import EPISODES, EVALUATIONS, write_online_results
from everlearn.runs import is_finished
from everlearn.saving import Saving, pause_on_interrupt
from everlearn.state import beginning_in, checkpoints, clear_leftovers, load_state, read_json, write_file
from everlearn.streams.source import Source, check_problem
from everlearn.types import Row, Task
from everlearn.way import Run


def run_online(recipe: OnlineRecipe, out: str | Path, listener: Listener | None = None) -> dict[str, Any]:
    """Learn online, once a seed, in the new folder `out`.

    Writes episodes.jsonl (a line an episode), evaluations.jsonl (a line a scoring), results.json, and the trained
    adapters as `checkpoint_ep<N>`, which peft loads (docs/online.md).

    Returns:
        The content of results.json.

    Raises:
        ConfigError, ModelError: before anything is learned. StreamError: also where a problem is one of those held out.
        TrainingError: if the loss is not finite. Paused: after SIGINT, the state saved; `resume_online` goes on.
    """
    out, listener = Path(out), listener or Listener()
    model = with_dtype(with_template(recipe.model), recipe.device, listener.note)
    recipe = replace(recipe, model=model)
    with beginning_in(out):
        return _go(recipe, out, listener or Listener())


def resume_online(out: str | Path, listener: Listener | None = None) -> dict[str, Any]:
    """Go on with an online run that was paused or killed, to the same end as if it never stopped.

    Raises:
        StateError: if there is none, its state is damaged, or its held-out problems or its model are others now.
    """
    out = Path(out)
    if not is_online(out):
        way_out = "Name the folder of an online run"
        raise StateError(describe("resume", "there is no online run in the folder", str(out), way_out))
    if is_finished(out):
        return read_json(out / "results.json")
    return _go(load_online_recipe(out / "recipe.yaml"), out, listener or Listener())


def is_online(folder: Path) -> bool:
    """Tell whether a folder holds an online run."""
    recipe = folder / "recipe.yaml"
    return recipe.exists() and "source" in read_yaml(recipe)


def _go(recipe: OnlineRecipe, out: Path, listener: Listener) -> dict[str, Any]:
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if n_processes > 1:
        raise ConfigError(describe("online", "learns in one process", n_processes, "Start it without torchrun"))
    accelerator = start_accelerator(precision=recipe.learner.precision, device=recipe.device)
    scale = None if accelerator.scaler is None else accelerator.scaler.state_dict()
    clear_leftovers(out)
    saved = checkpoints(out / "checkpoints")
    done = load_state(saved[-1])[1]["context"]["seed_number"] if saved else 0
    source = recipe.build_source()
    held_out = source.held_out(recipe.evaluation.n)
    if not held_out:
        way_out = "Let its held_out return some"
        raise ConfigError(describe("source", "holds no problem out", recipe.source, way_out))
    for row in held_out:
        check_problem(row)
    for seed in recipe.all_seeds():
        check_separate(source, held_out, seed, recipe.episodes)
    tasks = _tasks(recipe, source, held_out)
    made_of = Provenance.of(tasks, recipe.model)
    if saved:
        made_of.check_same(_begun(out))
    else:
        _begin(recipe, out, held_out, environment(accelerator.device), made_of)
    for number, seed in enumerate(recipe.all_seeds()):
        if number < done:
            continue
        one = Run(
            model=load_model(recipe.model, tasks, seed),
            learner=recipe.build_learner(),
            strategies=build_strategies(recipe.strategies),
            accelerator=accelerator,
            seed=seed,
            tasks={task.name: task for task in tasks},
            saving=Saving(out, recipe.checkpoint),
            eval_batch_size=recipe.evaluation.batch_size,
            listener=listener,
        )
        if scale is not None:  # of fp16: each seed begins as the first did
            accelerator.scaler.load_state_dict(scale)
        session = Session(one, recipe, source, held_out, number)
        with pause_on_interrupt(one.saving), closing(session.feed):
            session.go(resumed=bool(saved) and number == done)
        if one.saving.pause_requested and number + 1 < len(recipe.all_seeds()):
            raise Paused(str(out))
    return write_online_results(out)


def _begin(recipe: OnlineRecipe, out: Path, held_out: Sequence[Row], env: dict[str, Any], made_of: Provenance) -> None:
    """Write the recipe, and the logs' first lines."""
    write_file(out / "recipe.yaml", write_yaml(recipe.as_mapping()).encode())
    for name in (EPISODES, EVALUATIONS):
        write_file(out / name, b"")
    items = [{"type": row.get("type", ""), "difficulty": row.get("difficulty")} for row in held_out]
    header = {"type": "header", "recipe": recipe.as_mapping(), "env": env, "items": items}
    JsonLines(out / EVALUATIONS).append({**header, "made_of": asdict(made_of)})


def _begun(out: Path) -> Provenance | None:
    """Return what a run's held-out problems and model were when it began; None if it didn't write it down."""
    with open(out / EVALUATIONS, encoding="utf-8") as file:
        header = json.loads(file.readline())
    return Provenance(**header["made_of"]) if "made_of" in header else None


def check_separate(source: Source, held_out: Sequence[Row], seed: int, n_episodes: int) -> None:
    """Raise StreamError if a held-out problem is among those to be learned, as far as they are known beforehand.

    Every problem is looked at again when it comes.
    """
    names = names_of_all(held_out)
    feed = source.feed(seed, n_episodes)
    for row in feed.known(n_episodes):
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

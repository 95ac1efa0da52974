"""The course of an advice: plan, trials, comparison, recipe and report; and going on with one that was stopped."""

import json
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from everlearn.config import Recipe, load_recipe, write_yaml
from everlearn.errors import ConfigError, Paused, StateError, describe
from everlearn.kinds.advice.candidates import JOINT, PLAIN, Candidate, choose_candidates, completed, traits_of
from everlearn.kinds.advice.sizing import Sizes, Timing, Volume, budget_text
from everlearn.kinds.advice.trials import (
    SPENT_SHARE,
    limits,
    plan_sizes,
    run_trials,
    time_trial,
    trial_content,
)
from everlearn.listener import Listener
from everlearn.provenance import Provenance
from everlearn.report.advice import Advice, read_advice, recipe_header, write_advice
from everlearn.report.text import duration
from everlearn.runs import is_finished, open_schedules
from everlearn.state import make_folder, read_json, write_file, write_json
from everlearn.streams.schedule import Schedule

PLAN = "advise.json"
TIMING = "timing"  # folder of the timing trial, removed when it ends


def advise(
    content: Mapping[str, Any],
    out: Path,
    *,
    budget_s: float,
    strategies: Sequence[str] | None = None,
    listener: Listener | None = None,
) -> Advice:
    """Try the candidates, and write `report.html`, `tradeoff.png` and the recommended `recipe.yaml` into `out`.

    A folder in which this was begun is gone on with: trials keep the sizes they have, finished ones are not run again.

    Args:
        content: a recipe's content; without a model or a learner, those of `completed`.
        budget_s: how long all of this may take, by the wall clock; a new one each time.
        strategies: names to try, such as `replay+ewc`; None: those that suit the model.
        listener: is told the plan, and of each trial.

    Raises:
        ConfigError: if an option is wrong, or the budget too small for two candidates. Paused: after SIGINT.
        StateError: if the folder's trials were made of other rows, or another model.
    """
    deadline, listener = time.monotonic() + budget_s, listener or Listener()
    content = completed(content)
    recipe = load_recipe(content)
    seed = recipe.all_seeds()[0]
    made_of, schedule = _schedule(recipe)
    candidates = choose_candidates(strategies, recipe.strategies, traits_of(recipe, schedule))
    plan = _open_plan(content, seed, candidates, schedule, made_of, out)
    trial = trial_content(content, seed)
    if plan["sizes"] is None:
        timing = time_trial(trial, schedule, out / TIMING, deadline, budget_s, listener)
        sizes = plan_sizes(timing, schedule, candidates, deadline, budget_s)
    else:
        timing, sizes = Timing(**plan["timing"]), Sizes(**plan["sizes"])
    plan |= {"timing": asdict(timing), "sizes": asdict(sizes), "budget_s": budget_s, "strategies": strategies}
    make_folder(out)
    write_json(out / PLAN, plan)
    trial["stream"] |= limits(schedule, sizes)
    volume = Volume.of(schedule).within(sizes)
    folders = {out / "trials" / candidate.folder: candidate for candidate in candidates}
    waiting = [candidate for folder, candidate in folders.items() if not is_finished(folder)]
    listener.inform(
        f"{len(waiting)} of {len(folders)} trials to run: {sizes.rows} rows and {sizes.items} items a task at most, "
        f"about {duration(min(sum(timing.trial_s(volume, c.cost) for c in waiting), budget_s))}"
    )
    try:
        not_tried = run_trials(trial, folders, deadline, timing.trial_s(volume), listener)
    except Paused:
        raise Paused(str(out)) from None
    done = {candidate.name: folder for folder, candidate in folders.items() if is_finished(folder)}
    missing = [candidate for candidate in candidates[:2] if candidate.name not in done]
    if PLAIN not in done or len(done.keys() - {JOINT}) < 2:
        needed = budget_text(sum(timing.trial_s(volume, c.cost) for c in missing) / SPENT_SHARE)
        way_out = f"What was done is kept: start it again with --budget {needed} or more"
        raise ConfigError(describe("--budget", "ran out before two methods were tried", not_tried, way_out))
    setting = (
        f"{len(schedule.stream)} tasks, at most {sizes.rows} training rows and {sizes.items} evaluation items of each, "
        f"seed {seed}, model {recipe.model.name}; the same rows, items and seed for every method."
    )
    advice = read_advice(done, setting, not_tried)
    chosen = next(candidate for candidate in candidates if candidate.name == advice.choice.chosen)
    _write_recipe(content, seed, chosen, advice, out / "recipe.yaml")
    write_advice(advice, out / "recipe.yaml", out)
    return advice


def is_advice(folder: Path) -> bool:
    """Tell whether an advice was begun in the folder."""
    return (folder / PLAN).is_file()


def go_on(out: Path, listener: Listener | None = None) -> Advice:
    """Go on with an advice that was stopped, with what it was begun with; the budget starts anew."""
    plan = _read_plan(out)
    return advise(plan["content"], out, budget_s=plan["budget_s"], strategies=plan["strategies"], listener=listener)


def _schedule(recipe: Recipe) -> tuple[Provenance, Schedule]:
    """Return what the recipe's run is made of, and the schedule of its first seed.

    Raises:
        ConfigError: if it has a single task.
    """
    tasks, schedules = open_schedules(replace(recipe, seed=recipe.all_seeds()[0], seeds=[]))
    schedule = next(iter(schedules.values()))
    if len(schedule.stream) < 2:
        found = [task.name for task in schedule.stream]
        way_out = "Give two tasks or more: a file each, or a folder of them"
        raise ConfigError(describe("--stream", "there is one task, so nothing to forget it for", found, way_out))
    return Provenance.of(tasks, recipe.model), schedule


def _open_plan(
    content: Mapping[str, Any],
    seed: int,
    candidates: Sequence[Candidate],
    schedule: Schedule,
    made_of: Provenance,
    out: Path,
) -> dict[str, Any]:
    """Return a new plan, or the one in the folder if it is for the same data, model, learner and options."""
    plan = {
        "schema": 1,
        "content": dict(content),
        "seed": seed,
        "tasks": {task.name: [len(task.train), len(task.evaluation)] for task in schedule.stream},
        "made_of": asdict(made_of),
        "methods": {c.name: list(c.strategies) for c in candidates},
        "sizes": None,
        "timing": None,
    }
    plan = json.loads(json.dumps(plan, default=str))  # as it is read back
    way_out = "Name a new folder with --out"
    if not is_advice(out):
        if out.exists() and any(entry.name != TIMING for entry in out.iterdir()):
            raise ConfigError(describe("--out", "the folder is not empty", str(out), way_out))
        return plan
    before = _read_plan(out)
    for part in ("seed", "tasks", *sorted({*plan["content"], *before["content"]} - {"strategies"})):
        old, new = (one.get(part, one["content"].get(part)) for one in (before, plan))
        if old != new:
            raise ConfigError(describe("--out", f"the folder holds trials with another {part}", new, way_out))
    made_of.check_same(Provenance.read(before["made_of"], str(out / PLAN)) if "made_of" in before else None)
    for name, entries in plan["methods"].items():
        if before["methods"].get(name, entries) != entries:
            what = f"the folder holds a trial of {name} with other options"
            raise ConfigError(describe("--out", what, entries, way_out))
    return {**before, "content": plan["content"], "methods": {**before["methods"], **plan["methods"]}}


def _read_plan(out: Path) -> dict[str, Any]:
    plan, parts = read_json(out / PLAN), {"content", "methods", "sizes", "timing", "budget_s", "strategies"}
    if not isinstance(plan, dict) or not parts <= plan.keys():
        way_out = "Restore it from a copy, or begin anew in another folder"
        raise StateError(describe(str(out / PLAN), "is not what an advice writes", plan, way_out))
    return plan


def _write_recipe(content: Mapping[str, Any], seed: int, chosen: Candidate, advice: Advice, path: Path) -> None:
    """Write the whole recipe with the chosen methods: all the rows, not the trial's."""
    recipe = {**content, "strategies": list(chosen.strategies)}
    if not recipe.get("seeds"):
        recipe |= {"seed": seed}
    lines = [line for text in recipe_header(advice, path) for line in _wrapped(text)]
    write_file(path, ("\n".join(lines) + "\n" + write_yaml(recipe)).encode())


def _wrapped(text: str) -> list[str]:
    indent = "# " + " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(text.strip(), 118, initial_indent=indent, subsequent_indent=indent + "  ")

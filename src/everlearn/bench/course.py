"""The course of an experiment: read, check, search, run what isn't done, sum up; and what it would take."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from everlearn.bench.cells import DONE, FAILED, Job
from everlearn.bench.engines import Engine, processes, ray_cluster
from everlearn.bench.grid import Cell, Grid, read_grid, with_settings
from everlearn.bench.scores import score_of
from everlearn.bench.search import best, trial_content, trial_settings
from everlearn.errors import ConfigError, describe
from everlearn.files import locked
from everlearn.runs import is_finished
from everlearn.state import make_folder, read_json, write_json

BEGUN, FAILURES, LOCK = "bench.json", "failed.json", "lock"
CELLS, TRIALS, LOGS = "cells", "search", "logs"


@dataclass(frozen=True)
class Options:
    """How a grid is run: on how many workers, for how long, on which engine. settings: further ones of all cells."""

    jobs: int = 1
    hours: float | None = None
    engine: str = "processes"
    ray_address: str | None = None
    settings: tuple[str, ...] = ()


@dataclass
class Bench:
    """An experiment in a folder.

    Attributes:
        out: the folder. cells: what is to be done, hyperparameters chosen as far as they are.
        failures: cell's name -> its error, of those that failed the last time they were tried.
        cells_waiting: those whose hyperparameters are not chosen yet. engine: that does the jobs, while it is open.
    """

    out: Path
    grid: Grid
    cells: list[Cell]
    options: Options
    threads: int
    failures: dict[str, str]
    deadline: float | None
    cells_waiting: list[Cell] = field(default_factory=list)
    engine: Engine | None = None

    def folder(self, cell: Cell) -> Path:
        """Return a cell's run folder."""
        return self.out / CELLS / cell.name

    def left(self) -> list[Cell]:
        """Return the cells that aren't done."""
        return [*(cell for cell in self.cells if not is_finished(self.folder(cell))), *self.cells_waiting]


Tell = Callable[[str], None]


def bench(path: Path, out: Path, options: Options | None = None, tell: Tell = print) -> Bench:
    """Run a grid in a folder, or go on with it: cells that are done stay, those begun go on, those that failed are
    tried again.

    Args:
        path: the grid's file.
        tell: is given a line for each thing that happens.

    Returns:
        The experiment; its `failures` and `left()` say what isn't done.

    Raises:
        ConfigError: if the grid or an option is wrong, or data or a model can't be read, before a cell is run.
        StateError: if another process is at this folder.
    """  # fmt: skip
    options = options or Options()
    grid, cells = read_grid(path, options.settings)
    make_folder(out)
    with locked(out / LOCK, "experiment"):
        found = _open(grid, cells, out, options)
        with _engine(found) as found.engine:
            _go(found, tell)
    return found


def _go(found: Bench, tell: Tell) -> None:
    """Check, search, and run what isn't done."""
    _check_groups(found, tell)
    _search(found, tell)
    left, n_cells = found.left(), len(found.cells) + len(found.cells_waiting)
    tell(f"{n_cells} cells, {n_cells - len(left)} done, {len(left)} to run")
    ready = [cell for cell in left if cell not in found.cells_waiting]
    _run(found, {cell.name: (cell.content, found.folder(cell)) for cell in ready}, tell, found.failures)


def _open(grid: Grid, cells: list[Cell], out: Path, options: Options) -> Bench:
    """Return the experiment as the folder holds it; what was begun there may grow, but not change."""
    path, threads = out / BEGUN, grid.threads or max(1, (os.cpu_count() or 1) // options.jobs)
    begun: dict[str, Any] = {"cells": {}, "threads": threads}
    if path.exists():
        begun = read_json(path)
    elif (out / CELLS).exists() or any(entry.name != LOCK for entry in out.iterdir()):
        raise ConfigError(describe("--out", "the folder is not empty", str(out), "Name a new folder"))
    wanted = {cell.name: dict(cell.content) for cell in cells}
    for name, content in wanted.items():
        before = begun["cells"].get(name, content) if (out / CELLS / name).exists() else content
        if before != content:
            keys = [key for key in {*before, *content} if before.get(key) != content.get(key)]
            what = f"the folder holds cell {name} with another {keys[0]}"
            raise ConfigError(describe("--out", what, content.get(keys[0]), "Name a new folder with --out"))
    begun["cells"] |= wanted
    begun["labels"] = {c.name: {"group": c.group, "variant": c.variant, "seed": c.seed} for c in cells}
    write_json(path, begun)
    failures = read_json(out / FAILURES) if (out / FAILURES).exists() else {}
    failures = {name: error for name, error in failures.items() if name in wanted}
    deadline = None if options.hours is None else time.time() + 3600 * options.hours
    return Bench(out, grid, cells, options, begun["threads"], failures, deadline)


def _check_groups(found: Bench, tell: Tell) -> None:
    """Read data and model of each group of cells of which none was begun.

    Raises:
        ConfigError: naming all the groups of which they can't be read.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in found.cells:
        groups.setdefault(cell.group, []).append(cell)
    new = {name: cells[0] for name, cells in groups.items() if not any(found.folder(c).exists() for c in cells)}
    if not new:
        return
    tell(f"checking data and model of {len(new)} group{'s' if len(new) > 1 else ''}")
    failures: dict[str, str] = {}
    _run(found, {cell.name: (cell.content, None) for cell in new.values()}, lambda text: None, failures)
    if failures:
        lines = "\n".join(f"cell {name}: {error}" for name, error in failures.items())
        raise ConfigError(lines)


def _search(found: Bench, tell: Tell) -> None:
    """Choose hyperparameters for each place of the grid, and put them into its cells; those of a place whose trials
    aren't done wait."""  # fmt: skip
    search = found.grid.search
    if search is None:
        return
    places = {cell.place: cell for cell in found.cells}
    candidates = {place: search.candidates(cell.labels.get("method", "")) for place, cell in places.items()}
    trials: dict[str, dict[str, Any]] = {}
    names: dict[str, list[list[str]]] = {}
    for place, cell in places.items():
        names[place] = []
        for candidate in candidates[place] if len(candidates[place]) > 1 else ():
            own = {}
            for seed in search.seeds:
                content = with_settings(trial_content(cell.content, search.tasks, seed), trial_settings(candidate))
                own[f"{place}/{_digest(content)}/seed-{seed}"] = content
            names[place].append(list(own))
            trials |= own
    folders = {name: found.out / TRIALS / name for name in trials}
    left = {name: (trials[name], folder) for name, folder in folders.items() if not is_finished(folder)}
    if left:
        tell(f"search: {len(left)} trials to run on the first {search.tasks} tasks, measured on validation rows")
    failures: dict[str, str] = {}
    _run(found, left, tell, failures)
    waiting = {name for name, folder in folders.items() if not is_finished(folder)} - failures.keys()
    chosen = {
        place: _choose(place, candidates[place], [[folders[name] for name in own] for own in names[place]], tell)
        for place in places
        if not any(name in waiting for own in names[place] for name in own)
    }
    make_folder(found.out / TRIALS)
    write_json(found.out / TRIALS / "chosen.json", chosen)
    found.cells_waiting = [cell for cell in found.cells if cell.place not in chosen]
    found.cells = [
        replace(cell, content=with_settings(cell.content, chosen[cell.place]["chosen"]))
        for cell in found.cells
        if cell.place in chosen
    ]


def _digest(content: Mapping[str, Any]) -> str:
    """Return a name for a trial's recipe, its seed aside, so that another space finds the trials that it shares."""
    stream = {key: value for key, value in content["stream"].items() if key != "seed"}
    told = json.dumps({**content, "stream": stream, "seeds": []}, sort_keys=True, default=str)
    return sha256(told.encode()).hexdigest()[:12]


def _choose(
    place: str, candidates: Sequence[Mapping[str, Any]], folders: Sequence[Sequence[Path]], tell: Tell
) -> dict[str, Any]:
    """Return the candidate whose trials, in `folders`, scored highest on validation rows, and the scores of all."""
    if len(candidates) == 1:
        return {"chosen": candidates[0], "scores": None, "candidates": candidates}
    scores = [_mean(own) for own in folders]
    number = best(scores)
    told = ", ".join(f"{path} = {value!r}" for path, value in candidates[number].items())
    tell(f"search: {place}: {told} (validation {scores[number]:.3f})")
    return {"chosen": candidates[number], "scores": scores, "candidates": candidates}


def _mean(folders: Sequence[Path]) -> float | None:
    """Return the mean score of a candidate's trials; None where one failed."""
    if not all(is_finished(folder) for folder in folders):
        return None
    values = [score_of(folder) for folder in folders]
    return None if None in values else sum(values) / len(values)


def _run(
    found: Bench, runs: Mapping[str, tuple[Mapping[str, Any], Path | None]], tell: Tell, failures: dict[str, str]
) -> None:
    """Do runs, {name: (content, folder)}, until all are or the time is up; add the failed ones to `failures`."""
    jobs = [
        Job(
            name, dict(content), None if folder is None else str(folder.resolve()),
            str((found.out / LOGS / f"{name}.log").resolve()), os.getcwd(), found.threads, found.deadline,
            found.grid.keep_weights,
        )
        for name, (content, folder) in runs.items()
    ]  # fmt: skip
    if found.deadline is not None:
        jobs = [job for job in jobs if time.time() < found.deadline]
    if not jobs:
        return
    for n_done, outcome in enumerate(found.engine(jobs), start=1):
        head = f"[{n_done}/{len(jobs)}] {outcome.name}: {outcome.state}"
        if outcome.state == FAILED:
            failures[outcome.name] = outcome.error
            tell(f"{head}: {outcome.error}")
        else:
            failures.pop(outcome.name, None)
            folder = runs[outcome.name][1]
            score = score_of(folder) if outcome.state == DONE and folder is not None else None
            tell(f"{head}{'' if score is None else f', {score:.3f}'} ({outcome.seconds:.0f} s)")
        if failures is found.failures:
            write_json(found.out / FAILURES, failures)


def _engine(found: Bench) -> AbstractContextManager[Engine]:
    options = found.options
    if options.engine == "ray":
        return ray_cluster(found.threads, options.ray_address, options.jobs * found.threads)
    return processes(options.jobs, found.threads)

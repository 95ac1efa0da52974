"""What a grid would take: its cells, each timed by a short run of a few rows, or of a few seconds."""

import shutil
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import RenderableType

from everlearn.bench.course import Options, Tell
from everlearn.bench.grid import Cell, read_grid
from everlearn.errors import EverlearnError, Paused
from everlearn.kinds.advice.sizing import Sizes, Volume
from everlearn.kinds.advice.trials import limits
from everlearn.listener import Listener
from everlearn.report.table import Grid as Table
from everlearn.report.table import to_rich
from everlearn.report.text import duration
from everlearn.runs import Supervised, open_schedules, read_recipe, run
from everlearn.types import Episode, Score, Task

PROBE_S, PROBES_S = 20.0, 120.0  # of one probe, and of all of them
ROWS, ITEMS = 32, 8  # of a task at least, in the probe of a run over tasks


def dry_run(path: Path, options: Options, tell: Tell) -> list[RenderableType]:
    """Return the list of a grid's cells and what they would take; nothing is kept.

    Each place of the grid is probed once, while two minutes last; one that wasn't takes as long as those of its group
    did on average.
    """
    grid, cells = read_grid(path, options.settings)
    places: dict[str, list[Cell]] = {}
    for cell in cells:
        places.setdefault(cell.place, []).append(cell)
    found: dict[str, float | str] = {}
    until, n_threads = time.monotonic() + PROBES_S, torch.get_num_threads()
    torch.set_num_threads(grid.threads or max(1, n_threads // options.jobs))
    for place, own in places.items():
        if time.monotonic() < until:
            tell(f"probing {place}")
            found[place] = probe(own[0].content)
    torch.set_num_threads(n_threads)
    rows, total_s, unknown = [], 0.0, 0
    for place, own in places.items():
        alike = [s for other, s in found.items() if isinstance(s, float) and places[other][0].group == own[0].group]
        seconds = found.get(place, sum(alike) / len(alike) if alike else "not probed")
        each = f"{'' if place in found else '~'}{duration(seconds)}" if isinstance(seconds, float) else seconds
        unknown += 0 if isinstance(seconds, float) else len(own)
        total_s += seconds * len(own) if isinstance(seconds, float) else 0.0
        rows.append((place, ", ".join(str(cell.seed) for cell in own), each))
    trials = 0
    if grid.search is not None:
        per_place = {
            place: len(grid.search.candidates(own[0].labels.get("method", ""))) for place, own in places.items()
        }
        trials = sum(n for n in per_place.values() if n > 1) * len(grid.search.seeds)
    note = f"{len(cells)} cells, about {duration(total_s / options.jobs)} with --jobs {options.jobs}"
    note += f", without {unknown} cells of unknown time" if unknown else ""
    note += f", and {trials} trials of the search before them" if trials else ""
    return [to_rich(Table("Cells", ("cell", "seeds", "each about"), tuple(rows), f"{note}."), limit=60)]


def probe(content: Mapping[str, Any]) -> float | str:
    """Return about how many seconds a recipe's run would take, or in words why that can't be told."""
    folder = Path(tempfile.mkdtemp())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind, recipe = read_recipe(content)
            return _of_tasks(content, recipe, folder) if kind is Supervised else _of_steps(content, folder)
    except EverlearnError as error:
        return f"fails: {error}"
    except Paused:
        raise KeyboardInterrupt from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _of_tasks(content: Mapping[str, Any], recipe: Any, folder: Path) -> float | str:
    """Time a run over tasks with few rows and items, and reckon what all of them take."""
    _, schedules = open_schedules(recipe)
    schedule = next(iter(schedules.values()))
    batch = vars(recipe.build_learner()).get("batch_size")
    sizes = Sizes(max(ROWS, 2 * batch if isinstance(batch, int) else 0), ITEMS)
    small = {**content, "stream": {**content["stream"], **limits(schedule, sizes)}}
    started, watch = time.monotonic(), _Watch()
    try:
        results = run(small, folder / "run", listener=watch)
    except _OutOfTime:
        return f"over {duration(PROBE_S)} for {sizes.rows} rows a task"
    wall_s, steps = time.monotonic() - started, results["seeds"][0]["cost"]["steps"]
    train_s, eval_s = (sum(step[name] for step in steps) for name in ("train_s", "eval_s"))
    whole, probed = Volume.of(schedule), Volume.of(schedule).within(sizes)
    rows, items = sum(whole.rows) / sum(probed.rows), sum(whole.items) / max(1, sum(probed.items))
    return max(0.0, wall_s - train_s - eval_s) + train_s * rows + eval_s * items


def _of_steps(content: Mapping[str, Any], folder: Path) -> float | str:
    """Run for a while, and reckon by the share of the steps, or episodes, that were done."""
    started, watch = time.monotonic(), _Watch()
    try:
        run(content, folder / "run", listener=watch)
        return time.monotonic() - started
    except _OutOfTime:
        if not watch.n_done:
            return f"over {duration(PROBE_S)} to the first step"
        n_parts = len(content["stream"].get("order", [])) or 1 if "stream" in content else 1
        first_s = watch.first - started
        return first_s + (watch.last - watch.first) / max(1, watch.n_done - 1) * watch.n_steps * n_parts


class _OutOfTime(Exception):
    """A probe has taken long enough."""


class _Watch(Listener):
    """Counts steps, iterations or episodes, and stops the run when the probe's time is up."""

    def __init__(self) -> None:
        self.until = time.monotonic() + PROBE_S
        self.n_steps = self.n_done = 0
        self.first = self.last = 0.0

    def training(self, task: Task, n_steps: int, done: int) -> None:
        self.n_steps = max(self.n_steps, n_steps)
        self._check()

    def step(self, done: int, loss: float) -> None:
        self._count()

    def iteration(self, done: int, success: float) -> None:
        self._count()

    def episode(self, done: int, n_episodes: int, episode: Episode) -> None:
        self.n_steps = n_episodes
        self._count()

    def scored(self, score: Score) -> None:
        self._check()

    def note(self, text: str) -> None:
        pass

    def _count(self) -> None:
        self.n_done += 1
        self.last = time.monotonic()
        self.first = self.first or self.last
        self._check()

    def _check(self) -> None:
        if time.monotonic() > self.until:
            raise _OutOfTime

"""What meta-learning showed: the starts beside each other, as numbers with intervals and as a picture."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from everlearn.evaluation.stats import (
    Interval,
    combine_intervals,
    outcome_interval,
    paired_difference,
    range_of,
    seeds_interval,
)
from everlearn.report.html import picture_section, table_section
from everlearn.report.page import PAGE
from everlearn.report.plots import Picture
from everlearn.report.style import new_figure, run_style, save, tidy
from everlearn.report.table import Grid
from everlearn.report.text import estimate
from everlearn.state import make_folder, write_file

PICTURE = "meta.png"

Line = Mapping[str, Any]
Entry = dict[str, float | None]  # mean, low, high
BySeed = list[list[np.ndarray]]  # [seed][held-out task][item]


def summarise_meta(lines: Sequence[Line]) -> dict[str, Any]:
    """Return means and 95% intervals by start and number of steps, and the differences of meta from the others.

    A seed's number is the mean over held-out tasks and draws of rows; tasks weigh alike. Intervals are over seeds and
    items, which the seeds share, see `seeds_interval`; with one seed over the items alone. Those of losses are over
    seeds alone; with one seed there is none.

    Returns:
        {metric, n_seeds, n_items (of a seed), scores: {start: {steps: {mean, low, high}}},
        differences: {"meta - plain": {steps: {mean, low, high}}}, loss: {scores, differences} of the losses,
        by_task: {held-out task: {scores, differences, loss}}}.
    """
    first = [line for line in lines if all(line[name] == lines[0][name] for name in ("seed", "start", "steps", "draw"))]
    tasks = list(dict.fromkeys(line["task"] for line in lines))
    return {
        "metric": lines[0]["metric"],
        "n_seeds": len({line["seed"] for line in lines}),
        "n_items": sum(len(line["outcomes"]) for line in first),
        **_tables(lines),
        "by_task": {task: _tables([line for line in lines if line["task"] == task]) for task in tasks},
    }


def meta_grid(summary: Mapping[str, Any]) -> Grid:
    """Return starts × numbers of gradient steps, the differences, those of each held-out task, and the losses."""
    rows = [*_rows(summary, "scores"), *_rows(summary, "differences")]
    if len(summary["by_task"]) > 1:
        rows += [row for task, part in summary["by_task"].items() for row in _rows(part, "differences", f"{task}: ")]
    rows += [*_rows(summary["loss"], "scores", "loss: "), *_rows(summary["loss"], "differences", "loss: ")]
    over = f"{summary['n_seeds']} seeds and the items" if summary["n_seeds"] > 1 else "the items of one seed"
    note = f"{summary['metric']}, {summary['n_items']} held-out items a seed; 95% intervals over {over}."
    heads = (f"{n} step" if n == "1" else f"{n} steps" for n in next(iter(summary["scores"].values())))
    return Grid("Steps on a held-out task", ("start", *heads), tuple(rows), note)


def write_meta_report(summaries: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Write `report.html` and its picture `meta.png` for one run, or several one under the other, {name: summary}."""
    make_folder(out)
    picture = Picture(out / PICTURE, "What a few steps do", "Bands are 95% intervals.")
    save(draw_meta(summaries), picture.path)
    grids = [
        replace(grid, title=f"{grid.title}: {name}" if len(summaries) > 1 else grid.title)
        for name, grid in ((name, meta_grid(one)) for name, one in summaries.items())
    ]
    title = "everlearn: learning to learn"
    lead = f"What a few gradient steps on a held-out task do from each start. Runs: {', '.join(summaries)}."
    body = "\n".join([picture_section(picture), *map(table_section, grids)])
    page = Template(PAGE).substitute(title=title, lead=html.escape(lead), body=body)
    write_file(out / "report.html", page.encode())


def draw_meta(summaries: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Return score and loss against the number of gradient steps: a row of panels a run, a line for each start; bands
    are 95% intervals."""  # fmt: skip
    figure = new_figure(9.6, 3.8 * len(summaries))
    rows = figure.subplots(len(summaries), 2, squeeze=False)
    for panels, (name, summary) in zip(rows, summaries.items(), strict=True):
        for axes, part, label in (
            (panels[0], summary, summary["metric"].replace("_", " ")),
            (panels[1], summary["loss"], "loss of a target"),
        ):
            for position, (start, by_steps) in enumerate(part["scores"].items()):
                _draw_start(axes, start, by_steps, run_style(position))
            steps = [int(n) for n in next(iter(part["scores"].values()))]
            axes.set(xlabel="gradient steps on a held-out task", ylabel=label, xticks=steps)
            tidy(axes)
        panels[0].set_title(name if len(summaries) > 1 else "")
        panels[0].legend(title="start", frameon=False)
    return figure


def _rows(part: Mapping[str, Any], what: str, before: str = "") -> list[tuple[str, ...]]:
    signed = what == "differences"
    return [
        (f"{before}{name}", *(" ".join(estimate(entry, signed)) for entry in by_steps.values()))
        for name, by_steps in part[what].items()
    ]


def _draw_start(axes: Axes, start: str, by_steps: Mapping[str, Entry], style: Mapping[str, Any]) -> None:
    known = [(int(n), e) for n, e in by_steps.items() if e["mean"] is not None]
    axes.plot([n for n, _ in known], [e["mean"] for _, e in known], label=start, markersize=5, **style)
    bands = [(n, e["low"], e["high"]) for n, e in known if e["low"] is not None]
    if bands:
        axes.fill_between(*zip(*bands, strict=True), color=style["color"], alpha=0.15, linewidth=0)


def _tables(lines: Sequence[Line]) -> dict[str, Any]:
    return {**_table(lines, "outcomes"), "loss": _table(lines, "loss")}


def _table(lines: Sequence[Line], what: str) -> dict[str, Any]:
    """Return {scores, differences} of what the lines hold: an outcome for each item, or one number."""
    starts = list(dict.fromkeys(line["start"] for line in lines))
    steps = sorted({line["steps"] for line in lines})
    of = {(start, n): _by_seed(lines, start, n, what) for start in starts for n in steps}
    others = [start for start in starts if start != "meta" and "meta" in starts]
    metric = lines[0]["metric"] if what == "outcomes" else None
    return {
        "scores": {start: {str(n): _level(of[start, n], metric) for n in steps} for start in starts},
        "differences": {
            f"meta - {other}": {str(n): _difference(of[other, n], of["meta", n], metric) for n in steps}
            for other in others
        },
    }


def _by_seed(lines: Sequence[Line], start: str, n_steps: int, what: str) -> BySeed:
    """Return for each seed and held-out task the mean over draws: an outcome for each item, or one number."""
    found: dict[int, dict[str, list[Any]]] = {}
    for line in lines:
        if (line["start"], line["steps"]) == (start, n_steps):
            value = math.nan if line[what] is None else line[what]
            found.setdefault(line["seed"], {}).setdefault(line["task"], []).append(value)
    return [[np.atleast_1d(np.mean(draws, axis=0)) for draws in found[seed].values()] for seed in sorted(found)]


def _level(by_seed: BySeed, metric: str | None) -> Entry:
    """Return the mean with its interval. metric: of the items' outcomes; None for numbers without items."""
    if metric is None:
        return _over_seeds([[_alone(task) for task in tasks] for tasks in by_seed])
    bounds = range_of(metric)
    return _over_seeds([[outcome_interval(items, bounds) for items in tasks] for tasks in by_seed], bounds)


def _difference(before: BySeed, after: BySeed, metric: str | None) -> Entry:
    pairs = [list(zip(first, second, strict=True)) for first, second in zip(before, after, strict=True)]
    if metric is None:
        return _over_seeds([[_alone(second - first) for first, second in tasks] for tasks in pairs])
    found = [[paired_difference(first, second) for first, second in tasks] for tasks in pairs]
    parts = [[Interval(one.difference, one.low, one.high) for one in tasks] for tasks in found]
    return _over_seeds(parts, range_of(metric, change=True))


def _alone(number: np.ndarray) -> Interval:
    return Interval(float(number[0]), math.nan, math.nan)


def _over_seeds(by_seed: list[list[Interval]], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Entry:
    """Return the mean over seeds and tasks with its interval, null where they aren't known."""
    if not all(math.isfinite(part.value) for tasks in by_seed for part in tasks):
        return {"mean": None, "low": None, "high": None}
    found = seeds_interval([combine_intervals(tasks) for tasks in by_seed], bounds)
    ends = {name: None if math.isnan(end) else end for name, end in (("low", found.low), ("high", found.high))}
    return {"mean": found.value, **ends}

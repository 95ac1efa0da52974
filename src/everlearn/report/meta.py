"""What meta-learning showed: the starts beside each other, as numbers with intervals and as a picture."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from everlearn.evaluation.stats import Interval, PairedDifference, mean_interval, outcome_interval, paired_difference
from everlearn.report.style import new_figure, run_style, tidy
from everlearn.report.table import Grid
from everlearn.report.text import estimate

Line = Mapping[str, Any]
Entry = dict[str, float | None]  # mean, low, high
BySeed = list[list[np.ndarray]]  # [seed][held-out task][item]


def summarise_meta(lines: Sequence[Line]) -> dict[str, Any]:
    """Return means and 95% intervals by start and number of steps, and the differences of meta from the others.

    A seed's number is the mean over held-out tasks and draws of rows; intervals are Student's over seeds, on the same
    items. With one seed they are over items, and say nothing about other seeds. Losses have none then.

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
    over = f"{summary['n_seeds']} seeds" if summary["n_seeds"] > 1 else "the items of one seed"
    note = f"{summary['metric']}, {summary['n_items']} held-out items a seed; 95% intervals over {over}."
    heads = (f"{n} step" if n == "1" else f"{n} steps" for n in next(iter(summary["scores"].values())))
    return Grid("Steps on a held-out task", ("start", *heads), tuple(rows), note)


def draw_meta(summary: Mapping[str, Any]) -> Figure:
    """Return score and loss against the number of gradient steps, a line for each start; bands are 95% intervals."""
    figure = new_figure(9.6, 3.8)
    panels = figure.subplots(1, 2)
    for axes, part, label in (
        (panels[0], summary, summary["metric"].replace("_", " ")),
        (panels[1], summary["loss"], "loss of a target"),
    ):
        for position, (start, by_steps) in enumerate(part["scores"].items()):
            _draw_start(axes, start, by_steps, run_style(position))
        steps = [int(n) for n in next(iter(part["scores"].values()))]
        axes.set(xlabel="gradient steps on a held-out task", ylabel=label, xticks=steps)
        tidy(axes)
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
    over_items = what == "outcomes" and len({line["seed"] for line in lines}) == 1
    mean, difference = (_mean_of_items, _difference_of_items) if over_items else (_mean, _difference)
    return {
        "scores": {start: {str(n): mean(of[start, n]) for n in steps} for start in starts},
        "differences": {
            f"meta - {other}": {str(n): difference(of[other, n], of["meta", n]) for n in steps} for other in others
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


def _mean(by_seed: BySeed) -> Entry:
    return _entry(mean_interval, _means(by_seed))


def _difference(before: BySeed, after: BySeed) -> Entry:
    return _entry(mean_interval, _means(after) - _means(before))


def _mean_of_items(by_seed: BySeed) -> Entry:
    return _entry(outcome_interval, np.concatenate(by_seed[0]))


def _difference_of_items(before: BySeed, after: BySeed) -> Entry:
    return _entry(paired_difference, np.concatenate(before[0]), np.concatenate(after[0]))


def _means(by_seed: BySeed) -> np.ndarray:
    """Return a number for each seed: the mean over tasks, which weigh alike."""
    return np.array([np.mean([items.mean() for items in tasks]) for tasks in by_seed])


def _entry(interval: Callable[..., Interval | PairedDifference], *values: np.ndarray) -> Entry:
    """Return the mean with its interval, null where they aren't known: one value, or one that isn't finite."""
    if not all(np.isfinite(part).all() for part in values):
        return {"mean": None, "low": None, "high": None}
    mean, low, high, *_ = astuple(interval(*values))
    return {"mean": mean, **{name: None if math.isnan(end) else end for name, end in (("low", low), ("high", high))}}

"""Runs with a library of experts: how each expert came to be and what it answers, and a map of the tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from everlearn.errors import EverlearnError
from everlearn.report.plot_router import LOOKS, Lines, action_marks, decisions_of
from everlearn.report.style import COLOURS, GREY, fonts, labels, new_figure, tidy
from everlearn.report.text import short
from everlearn.report.views import RunView

if TYPE_CHECKING:
    from everlearn.experts.library import Library

TITLE = "How the library grew"
CAPTION = (
    "Left: a line for each expert, from the task that it was made for, with all that it answers; a fork hangs from the "
    "expert that it began as. Right: tasks that lie near each other have like signals; a colour for each expert."
)
ROW = 0.26  # inches for an expert
MOST_NAMED = 24  # prototypes whose tasks are named on the map


def draw_experts(views: Sequence[RunView]) -> Figure | None:
    """Return a row for each run with a library of experts, of its first seed; None where there is no such run."""
    found = {
        view.name: (of_seeds[0], view.run.folder / "library" / f"seed-{view.seeds[0]}")
        for view in views
        if (of_seeds := decisions_of(view)) and of_seeds[0]
    }
    return experts_figure(found) if found else None


def experts_figure(libraries: Mapping[str, tuple[Lines, Path]]) -> Figure:
    """Return a row for each of some libraries.

    Left, a line for each expert over the tasks, from where it was made; a fork hangs from what it began as. Right, the
    prototypes along the two main axes of the space in which tasks are compared, a colour for each expert.

    Args:
        libraries: {name: (the decisions, the library's folder)}.
    """
    heights = [1.6 + ROW * max(n_experts(lines), 6) for lines, _ in libraries.values()]
    figure = new_figure(10.4, sum(heights) + 0.5)
    grid = figure.subplots(len(libraries), 2, squeeze=False, height_ratios=heights, width_ratios=[1.25, 1])
    names = labels(list(libraries), "run", 40)
    for (tree, chart), name, (lines, folder) in zip(grid, names, libraries.values(), strict=True):
        _tree(tree, lines)
        tree.set_title(f"{name}: experts over the tasks", fontsize=10, loc="left", fontfamily=fonts())
        _map(chart, folder)
        chart.set_title("tasks, by their signals", fontsize=10, loc="left")
    handles = action_marks(lines for lines, _ in libraries.values())
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.5)
    return figure


def n_experts(decisions: Lines) -> int:
    """Return how many experts answer at least one of the tasks."""
    return len({number for line in decisions if (number := line.get("answers")) is not None})


def _tree(axes: Axes, lines: Lines) -> None:
    tidy(axes)
    rows: dict[int, int] = {}
    named: dict[int, str] = {}
    for x, line in enumerate(lines, start=1):
        number = line.get("answers")
        if number is None:
            continue
        row, new = rows.setdefault(number, len(rows)), number not in named
        named.setdefault(number, line["task"])
        if new:
            axes.plot([x, len(lines) + 0.5], [row, row], color="#9aa3ad", linewidth=1.2, zorder=1)
        if new and line["action"] == "fork" and line["expert"] in rows:
            axes.plot([x, x], [rows[line["expert"]], row], color=LOOKS["fork"][0], linewidth=1.2, zorder=2)
        colour, marker = LOOKS[line["action"]]
        axes.plot(x, row, color=colour, marker=marker, markersize=6, clip_on=False, zorder=3)
    axes.set_yticks(list(rows.values()), [f"{number}  {short(named[number], 22)}" for number in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0.4, len(lines) + 0.6)
    axes.set_xlabel("task")
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))


def _map(axes: Axes, folder: Path) -> None:
    from everlearn.experts.library import Library  # brings peft, which other reports do without

    axes.set_xticks([])
    axes.set_yticks([])
    if not Library.is_library(folder):
        _say(axes, "The library isn't in the run's folder.")
        return
    try:
        places, experts, tasks = places_of(Library.open(folder))
    except EverlearnError as error:
        _say(axes, short(str(error).replace(f"{folder.parent}/", ""), 160))
        return
    if len(places) < 3:
        _say(axes, "Too few tasks for a map.")
        return
    order = {number: i for i, number in enumerate(dict.fromkeys(experts))}
    for place, number, task in zip(places, experts, tasks, strict=True):
        colour = COLOURS[order[number] % len(COLOURS)]
        axes.plot(*place, color=colour, marker="o", markersize=6)
        told = f"{number} {short(task, 18)}" if len(tasks) <= MOST_NAMED else str(number)
        axes.annotate(told, place, xytext=(4, 3), textcoords="offset points", fontsize=7, color=colour)
    axes.margins(0.18, 0.1)


def places_of(library: "Library") -> tuple[np.ndarray, list[int], list[str]]:
    """Return where a library's prototypes lie along the two main axes of their space [n, 2], their experts and tasks.

    The space is that in which its router compares tasks (`everlearn.experts.signals.Space`).
    """
    from everlearn.experts.signals import Space

    known, made = library.prototypes(), library.profiled_with
    if made is None or not len(known.vectors):
        return np.zeros((0, 2)), [], []
    weights = (library.router() or {"config": {}})["config"].get("weights")
    joined = Space.of(known.vectors, made["blocks"], weights).joined(known.vectors).numpy()
    axes, sizes, _ = np.linalg.svd(joined - joined.mean(0), full_matrices=False)
    places = np.zeros((len(joined), 2))
    places[:, : min(2, len(sizes))] = (axes * sizes)[:, :2]
    return places, list(known.experts), list(known.tasks)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=9, wrap=True)

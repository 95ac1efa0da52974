"""Scores while the stream is learned: the mean over the tasks seen so far, and each task by itself."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from everlearn.evaluation.metrics import average_over_seen
from everlearn.evaluation.stats import Interval, combine_intervals, seeds_interval
from everlearn.report.matrix import NEVER, SeedMatrix
from everlearn.report.style import fonts, labels, new_figure, run_style, tidy
from everlearn.report.views import RunView, axis_names, mean_matrix

MAX_LEGEND_COLUMNS = 4


def draw_mean_curve(views: Sequence[RunView]) -> Figure:
    """Return the mean score over the tasks learned so far, after each step; bands are 95% intervals over seeds."""
    n_steps = max((len(matrix.schedule) for view in views for matrix in view.started), default=1)
    figure = new_figure(min(max(6.5, 0.55 * n_steps + 2), 12), 4.4)
    axes = figure.subplots()
    for position, view in enumerate(views):
        alike = [matrix for matrix in view.started if len(matrix.schedule) == len(view.started[0].schedule)]
        if alike:
            _line(axes, np.mean([_seen(matrix) for matrix in alike], axis=0), position, _is_level(view, n_steps))
            _band(axes, [] if _is_level(view, n_steps) else alike, run_style(position)["color"])
    _finish(axes, n_steps, "learning step", "mean score, tasks learned so far")
    _legend(figure, axes, views)
    return figure


def draw_task_curves(views: Sequence[RunView]) -> Figure:
    """Return a panel for each task: its score after each step, from the one that taught it; a line for each run."""
    by_name = all(view.same_order for view in views)
    names = list(dict.fromkeys(name for view in views if view.started for name in _columns(view, by_name)))
    n_steps = max((len(matrix.schedule) for view in views for matrix in view.started), default=1)
    across = min(len(names), 3 if len(names) <= 9 else 4 if len(names) <= 16 else 5) or 1
    down = math.ceil(len(names) / across) or 1
    figure = new_figure(max(across * 3.1, 5.0), down * 2.3 + 0.9)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    titles = labels(names, "task", 30)
    for axes, name, title in zip(panels, names, titles, strict=False):
        axes.set_title(title, fontfamily=fonts(), fontsize=10)
        for position, view in enumerate(views):
            _task_line(axes, view, position, name, n_steps, by_name)
        _finish(axes, n_steps, "", "")
        axes.tick_params(labelsize=8, labelbottom=True)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.get_layout_engine().set(h_pad=0.09)
    figure.supxlabel("learning step", fontsize=10)
    figure.supylabel("score", fontsize=10)
    _legend(figure, panels[0], views)
    return figure


def _columns(view: RunView, by_name: bool) -> list[str]:
    if by_name:
        return axis_names(view)[0]
    return [f"task {place + 1}" for place in range(len(view.started[0].tasks))]


def _task_line(axes: Axes, view: RunView, position: int, name: str, n_steps: int, by_name: bool) -> None:
    if not view.started or name not in (columns := _columns(view, by_name)):
        return
    column = columns.index(name)
    first = max(view.started[0].learned_at[column], 0)
    curve = mean_matrix(view)[:, column].copy()
    curve[:first] = np.nan
    _line(axes, curve, position, _is_level(view, n_steps))


def _seen(matrix: SeedMatrix) -> np.ndarray:
    """Return the mean over the tasks seen after each step [n_steps]; tasks that are only scored stay out."""
    taught = np.flatnonzero(np.array(matrix.learned_at) != NEVER)
    return average_over_seen(matrix.values[:, taught], np.array(matrix.learned_at)[taught])


def _mean_of_cells(matrix: SeedMatrix, step: int) -> Interval:
    """Return the mean over the tasks seen after a step, with its interval over the items."""
    first = np.array(matrix.learned_at)
    columns = np.flatnonzero((first != NEVER) & (first <= step))
    cells = (matrix.values, matrix.low, matrix.high)
    return combine_intervals([Interval(*(float(cell[step, column]) for cell in cells)) for column in columns])


def _is_level(view: RunView, n_steps: int) -> bool:
    """Return whether a run is drawn as a level: joint training, or one step where other runs have several."""
    one_step = bool(view.started) and len(view.started[0].schedule) == 1
    return n_steps > 1 and (view.is_joint or one_step)


def _line(axes: Axes, curve: np.ndarray, position: int, level: bool) -> None:
    """Draw a curve, or its last value as a level across the panel."""
    style = run_style(position)
    if level:
        known = curve[~np.isnan(curve)]
        for value in known[-1:]:
            axes.axhline(value, color=style["color"], linestyle=(0, (6, 3)), linewidth=1.4)
        return
    axes.plot(np.arange(1, len(curve) + 1), curve, **style, markersize=4, linewidth=1.6, clip_on=False)


def _band(axes: Axes, matrices: Sequence[SeedMatrix], colour: object) -> None:
    if len(matrices) < 2 or len(matrices[0].schedule) < 2:
        return
    known = ~np.isnan([_seen(matrix) for matrix in matrices]).any(axis=0)
    steps = np.flatnonzero(known).tolist()
    bounds = [
        seeds_interval([_mean_of_cells(matrix, step) for matrix in matrices], matrices[0].bounds()) for step in steps
    ]
    low, high = [bound.low for bound in bounds], [bound.high for bound in bounds]
    axes.fill_between([step + 1 for step in steps], low, high, color=colour, alpha=0.15, linewidth=0)


def _finish(axes: Axes, n_steps: int, x_label: str, y_label: str) -> None:
    tidy(axes)
    axes.set_xlim(0.7, n_steps + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=min(n_steps, 10), integer=True, min_n_ticks=1))
    low, high = axes.dataLim.intervaly
    if low >= 0 and high <= 1:
        axes.set_ylim(0, 1.02)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def _legend(figure: Figure, axes: Axes, views: Sequence[RunView]) -> None:
    """Put the runs' names above the panels, where no line can run under them."""
    handles = []
    n_steps = max((len(matrix.schedule) for view in views for matrix in view.started), default=1)
    for position, view in enumerate(views):
        style = run_style(position)
        line = {"linestyle": (0, (6, 3)), "marker": ""} if _is_level(view, n_steps) else {}
        handles += axes.plot([], [], **{**style, **line}, markersize=5, linewidth=1.6)
    names = labels([view.name for view in views], "run", 32)
    entry_width = 0.085 * max(len(name) for name in names) + 0.7
    across = min(len(views), max(1, int(figure.get_figwidth() // entry_width)), MAX_LEGEND_COLUMNS)
    more_lines = max(0, math.ceil(len(views) / across) - 2)
    figure.set_figheight(figure.get_figheight() + 0.19 * more_lines)  # so that the panels keep theirs
    legend = figure.legend(handles, names, loc="outside upper center", ncols=across, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_fontfamily(fonts())

"""The accuracy matrices of all runs as heat maps on one colour scale, the value printed in each cell."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from everlearn.report.style import GREY, fonts, labels, new_figure
from everlearn.report.views import RunView, axis_names, mean_matrix, mean_over

MAP = "viridis"
MAX_WIDTH = 18.0  # inches


def draw_matrices(views: Sequence[RunView]) -> Figure:
    """Return the heat maps: rows are learning steps (first: before training), columns are tasks."""
    tables = [_table(view) for view in views]
    n_tasks = max(len(columns) for _, _, columns in tables)
    n_rows = max(len(rows) for _, rows, _ in tables)
    cell = 0.62 if n_tasks <= 6 else 0.5 if n_tasks <= 10 else 0.4 if n_tasks <= 16 else 0.34
    label_width = 0.085 * max((len(label) for _, rows, _ in tables for label in rows), default=0) + 0.4
    width, height = max(n_tasks * cell, 1.6) + label_width, n_rows * cell + 1.7
    across = min(len(views), max(1, int(MAX_WIDTH // width)))
    down = math.ceil(len(views) / across)
    figure = new_figure(max(across * width + 0.9, 3.4), down * height + 0.4)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    scale = _scale([values for values, _, _ in tables])
    limit = max(12, int(width / 0.105))
    titles = labels([view.name for view in views], "run", limit)
    used = panels[: len(views)]
    for axes, title, (values, rows, columns) in zip(used, titles, tables, strict=True):
        _draw(axes, values, scale, 9.5 if cell > 0.6 else 8 if cell > 0.45 else 6.5 if cell > 0.36 else 5.8)
        axes.set_anchor("N")
        axes.set_title(title, fontfamily=fonts(), fontsize=12, fontweight="bold", pad=8)
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set(fontfamily=fonts(), fontsize=9)
    for axes in panels[len(views) :]:
        axes.set_visible(False)
    used[0].set_ylabel("after learning", fontsize=10)
    shape = {"shrink": 0.75 / down, "aspect": 22, "anchor": (0.0, 1.0), "pad": 0.02, "panchor": False}
    bar = figure.colorbar(used[0].images[0], ax=list(used), **shape)
    bar.set_label("score (higher is better)", fontsize=10)
    bar.outline.set_visible(False)
    return figure


def _table(view: RunView) -> tuple[np.ndarray, list[str], list[str]]:
    """Return values [n_rows, n_tasks] with the row and column labels; a row before training if one was scored."""
    if not view.started:
        return np.full((len(view.matrices[0].schedule), len(view.matrices[0].tasks)), np.nan), [], []
    tasks, steps = axis_names(view)
    columns = labels(tasks, "task", 16)
    numbered = [f"{place}. {label}" for place, label in enumerate(_step_labels(steps, tasks, columns), start=1)]
    numbered = numbered if view.same_order else steps
    values = mean_matrix(view)
    baseline = mean_over([matrix.baseline for matrix in view.started])
    if np.isnan(baseline).all():
        return values, numbered, columns
    return np.vstack([baseline, values]), ["before", *numbered], columns


def _step_labels(steps: Sequence[str], tasks: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the rows' labels, the same as the columns' where a step is a task."""
    known = dict(zip(tasks, columns, strict=True))
    return [known[step] if step in known else labels([step], "step", 16)[0] for step in steps]


def _scale(values: Sequence[np.ndarray]) -> Normalize:
    """Return 0…1 for shares, and the range of the values for anything else."""
    known = np.concatenate([table[~np.isnan(table)] for table in values])
    if not known.size or (known.min() >= 0 and known.max() <= 1):
        return Normalize(0.0, 1.0)
    return Normalize(known.min(), max(known.max(), known.min() + 1e-9))


def _draw(axes: Axes, values: np.ndarray, scale: Normalize, font_size: float) -> None:
    axes.imshow(np.ma.masked_invalid(values), cmap=MAP, norm=scale)
    axes.set_facecolor("#f1f1f1")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if np.isnan(values).all():
        middle = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "nothing scored yet", fontsize=9, color=GREY, **middle)
    shares = scale.vmin == 0.0 and scale.vmax == 1.0
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        red, green, blue, _ = colormaps[MAP](scale(value))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        text = f"{value:.2f}" if shares else f"{value:.3g}".replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=font_size)

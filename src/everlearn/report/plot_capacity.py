"""Runs whose tasks own parts of the model: how much each owns, and its score when learned and at the end."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from everlearn.evaluation.stats import Interval, range_of, seeds_interval
from everlearn.report.style import GREY, fonts, labels, new_figure, run_style, tidy
from everlearn.report.views import RunView, axis_names, mean_matrix, owned_shares

ACROSS = 3  # panels in a row


def draw_capacity(views: Sequence[RunView]) -> Figure | None:
    """Return a panel for each run and strategy that tells shares: a bar for each task, and one for what is free."""
    panels = [(view, name, shares) for view in views for name, shares in owned_shares(view).items()]
    if not panels:
        return None
    n_rows = max(len(shares) for _, _, shares in panels)
    figure, all_axes = _panels(len(panels), n_rows)
    for axes, (view, name, shares) in zip(all_axes, panels, strict=False):
        colours = [run_style(views.index(view))["color"]] * (len(shares) - 1) + ["#bbbbbb"]
        bars = axes.barh(range(len(shares)), shares, color=colours, height=0.66)
        axes.bar_label(bars, [_percent(share) for share in shares], padding=4, fontsize=8.5)
        axes.set_xlim(0, max(float(max(shares)), 1e-6) * 1.25)
        axes.set_xticks([])
        axes.set_xlabel("share of the weights that a task may own", fontsize=9)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        _name_rows(axes, [*axis_names(view)[0], "free"])
        _title(axes, f"{view.name}: {name}")
    return figure


def draw_task_scores(views: Sequence[RunView]) -> Figure | None:
    """Return a panel for each such run: a line for each task, with its score when learned and at the end."""
    shown = [view for view in views if owned_shares(view)]
    if not shown:
        return None
    figure, all_axes = _panels(len(shown), max(len(view.started[0].tasks) for view in shown))
    for axes, view in zip(all_axes, shown, strict=False):
        style, matrix = run_style(views.index(view)), view.started[0]
        columns = matrix.learned
        values = mean_matrix(view)
        first = [values[matrix.learned_at[column], column] for column in columns]
        last = values[matrix.last_step, columns]
        axes.hlines(columns, first, last, color=style["color"], linewidth=1.2)
        axes.plot(first, columns, "o", markerfacecolor="white", markeredgecolor=style["color"], markersize=7.5)
        axes.errorbar(last, columns, xerr=_whiskers(view, columns, last), fmt="o", color=style["color"], markersize=4.5,
                      ecolor=GREY, elinewidth=1, capsize=2.5)  # fmt: skip
        tidy(axes, "x")
        low, high = axes.dataLim.intervalx
        if low >= 0 and high <= 1:
            axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("score", fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        _name_rows(axes, axis_names(view)[0])
        _title(axes, view.name)
    return figure


def _panels(n: int, n_rows: int) -> tuple[Figure, list[Axes]]:
    across = min(n, ACROSS)
    down = -(-n // across)
    figure = new_figure(max(4.2 * across, 6.0), down * (0.3 * n_rows + 1.1))
    figure.get_layout_engine().set(w_pad=0.12)
    panels = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for axes in panels[n:]:
        axes.set_visible(False)
    return figure, panels


def _whiskers(view: RunView, columns: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the lengths below and above [2, n] of the last scores' intervals, over items and seeds."""
    alike = [matrix for matrix in view.started if matrix.values.shape == view.started[0].values.shape]
    intervals = []
    for column in columns:
        cells = [(matrix.values, matrix.low, matrix.high) for matrix in alike]
        parts = [
            Interval(*(float(cell[matrix.last_step, column]) for cell in own))
            for matrix, own in zip(alike, cells, strict=True)
        ]
        intervals.append(seeds_interval(parts, range_of(alike[0].metric_names[alike[0].tasks[column]])))
    bounds = np.array([[interval.low for interval in intervals], [interval.high for interval in intervals]])
    return np.nan_to_num(np.clip([last - bounds[0], bounds[1] - last], 0, None))


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels(names, "task", 24), fontfamily=fonts(), fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _title(axes: Axes, name: str) -> None:
    (text,) = labels([name], "run", 40)
    axes.set_title(text, fontsize=10, loc="left", fontfamily=fonts())


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"

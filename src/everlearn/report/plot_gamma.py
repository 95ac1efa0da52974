"""Runs with gamma-gated EWC: gamma over training, and the signals that it follows."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from everlearn.report.style import fonts, labels, new_figure, run_style, tidy
from everlearn.report.views import RunView, axis_names, strategy_curves

SHOWN = {"gamma": "gamma", "nll": "loss, nats", "accuracy": "accuracy", "gradient_norm": "gradient norm",
         "entropy": "entropy, nats"}  # fmt: skip
ACROSS = 3  # runs beside each other


def draw_gamma(views: Sequence[RunView]) -> Figure | None:
    """Return a column for each run that tells its gamma: gamma above, its signals below, a line for each seed.

    A task is one unit wide, however many steps it took, so that seeds and tasks compare. None where no run tells it.
    """
    found = [
        (view, curves) for view in views for curves in strategy_curves(view).values() if _names(curves)
    ]  # fmt: skip
    if not found:
        return None
    rows = [name for name in SHOWN if any(name in _names(curves) for _, curves in found)]
    across, down = min(len(found), ACROSS), -(-len(found) // ACROSS)
    figure = new_figure(max(4.4 * across, 6.4), down * (1.15 * len(rows) + 1.4))
    panels = figure.subplots(down * len(rows), across, squeeze=False)
    for number in range(down * across):
        top, column = number // across * len(rows), number % across
        for row, name in enumerate(rows):
            axes = panels[top + row, column]
            if number >= len(found):
                axes.set_visible(False)
                continue
            view, curves = found[number]
            _lines(axes, name, curves, run_style(views.index(view))["color"])
            _finish(axes, name, view, last=row == len(rows) - 1)
        if number < len(found):
            (title,) = labels([found[number][0].name], "run", 40)
            panels[top, column].set_title(title, fontsize=10, loc="left", fontfamily=fonts())
    return figure


def _names(curves: Sequence[Sequence[Mapping | None]]) -> set[str]:
    """Return what is told of a run in which gamma is."""
    names = {name for seed in curves for curve in seed if curve for name in curve}
    return names if "gamma" in names else set()


def _lines(axes: Axes, name: str, curves: Sequence[Sequence[Mapping | None]], colour: object) -> None:
    alpha = 1.0 if len(curves) == 1 else 0.45
    for seed in curves:
        for place, curve in enumerate(seed):
            if curve and name in curve:
                steps = curve["step"]
                middles = [(begin + end) / 2 / steps[-1] for begin, end in zip([0, *steps], steps, strict=False)]
                x = [place + middle for middle in middles]
                axes.plot(x, curve[name], color=colour, linewidth=1.1, alpha=alpha, marker="." * (len(x) == 1))


def _finish(axes: Axes, name: str, view: RunView, *, last: bool) -> None:
    tidy(axes)
    names = axis_names(view)[1]
    axes.set_xlim(0, len(names))
    for border in range(1, len(names)):
        axes.axvline(border, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.grid(visible=False, axis="x")
    axes.set_xticks([place + 0.5 for place in range(len(names))])
    axes.set_xticklabels(labels(names, "task", 16) if last else [], fontfamily=fonts(), fontsize=8.5)
    axes.tick_params(axis="x", length=0, labelrotation=90 if len(names) > 8 else 0)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylabel(SHOWN[name], fontsize=9)
    if name == "gamma":
        axes.axhline(1, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)))
        if min(axes.dataLim.intervaly) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_minor_locator(NullLocator())
    elif name == "accuracy":
        axes.set_ylim(0, 1.02)
    else:
        axes.set_ylim(bottom=0)

"""What each run cost, as bars: training time, tokens, memory, and the bytes that its strategies keep."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from everlearn.report.style import fonts, labels, new_figure, run_style
from everlearn.report.text import count, duration, size
from everlearn.report.views import RunView, kept_bytes, mean_cost


def draw_cost(views: Sequence[RunView]) -> Figure:
    """Return four panels of horizontal bars, a bar for each run, the value written at its end."""
    costs = [mean_cost(view) for view in views]
    panels: list[tuple[str, list[float], Callable[[float], str]]] = [
        ("training time", [cost["train_s"] for cost in costs], duration),
        ("tokens trained on", [cost["n_tokens"] for cost in costs], count),
        ("peak memory", [cost["peak_memory_bytes"] for cost in costs], size),
        ("kept by strategies", [sum(kept_bytes(view).values()) for view in views], size),
    ]
    figure = new_figure(9.6, 2 * (0.34 * len(views) + 0.75))
    figure.get_layout_engine().set(h_pad=0.1)
    names = labels([view.name for view in views], "run", 32)
    all_axes = figure.subplots(2, 2, sharey=True)
    for axes, (title, values, write) in zip(all_axes.ravel(), panels, strict=True):
        _bars(axes, title, values, write)
    for axes in all_axes[:, 0]:
        axes.set_yticks(range(len(names)), names, fontfamily=fonts(), fontsize=9)
    all_axes[0, 0].invert_yaxis()
    return figure


def _bars(axes: Axes, title: str, values: Sequence[float], write: Callable[[float], str]) -> None:
    colours = [run_style(position)["color"] for position in range(len(values))]
    bars = axes.barh(range(len(values)), values, color=colours, height=0.66)
    axes.bar_label(bars, [write(value) for value in values], padding=4, fontsize=9)
    axes.set_title(title, fontsize=10.5, loc="left")
    axes.set_xlim(0, (max(values) or 1) * 1.3)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)

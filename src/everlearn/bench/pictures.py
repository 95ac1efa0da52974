"""The pictures of an experiment: mean ranks, what is gained at which cost, and the scores while it was learned."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from everlearn.bench.ranks import Ranks
from everlearn.bench.scores import Entry
from everlearn.report.plot_scatter import Point, label_points
from everlearn.report.style import GREY, SOFT, fonts, labels, new_figure, run_style, tidy

MOST_ACROSS = 3
MOST_LINES = 12  # of more curves in a panel none can be followed
UNITS = {"train_s": 1.0, "memory_bytes": 2.0**20, "kept_bytes": 2.0**10}


def draw_ranks(ranks: Ranks) -> Figure:
    """Return the diagram of mean ranks: an axis, the best on the left, and bars over those that can't be told apart."""
    order = sorted(range(len(ranks.names)), key=lambda i: ranks.mean[i])
    names = labels(list(ranks.names), "method", 30)
    groups, k = ranks.groups(), len(order)
    left, right = order[: math.ceil(k / 2)], order[math.ceil(k / 2) :][::-1]
    bars = 0.42 * len(groups)
    depth = max(len(left), len(right)) * 0.62 + bars + 0.5
    figure = new_figure(9.0, 1.1 + 0.42 * (depth + 1.6))
    axes = figure.subplots()
    axes.set_axis_off()
    low, high = 1.0, float(k)
    side = 0.34 * (high - low)
    axes.set(xlim=(low - side - 0.1, high + side + 0.1), ylim=(depth, -1.75))
    axes.plot([low, high], [0, 0], color="black", linewidth=1.2)
    step = max(1, round(k / 12))
    for tick in range(1, k + 1, step):
        axes.plot([tick, tick], [0, -0.16], color="black", linewidth=1)
        axes.text(tick, -0.28, str(tick), ha="center", va="bottom", fontsize=9)
    width = min(ranks.critical, high - low)
    axes.plot([low, low + width], [-1.15, -1.15], color=SOFT, linewidth=1.4)
    for end in (low, low + width):
        axes.plot([end, end], [-1.05, -1.25], color=SOFT, linewidth=1.4)
    text = f"critical difference {ranks.critical:.2f}" + (
        ", more than there is room for" if width < ranks.critical else ""
    )
    axes.text(low, -1.33, text, fontsize=9, color=SOFT, va="bottom")
    for place, members in enumerate(groups):
        ends = [ranks.mean[ranks.names.index(name)] for name in (members[0], members[-1])]
        axes.plot([ends[0] - 0.03, ends[1] + 0.03], [0.3 + 0.42 * place] * 2, color=GREY, linewidth=4,
                  solid_capstyle="round")  # fmt: skip
    for side_, some in ((-1, left), (1, right)):
        for row, i in enumerate(some):
            height = bars + 0.55 + 0.62 * row
            end = low - 0.04 * (high - low) if side_ < 0 else high + 0.04 * (high - low)
            colour = run_style(i)["color"]
            axes.plot([ranks.mean[i], ranks.mean[i], end], [0, height, height], color=colour, linewidth=1.1)
            axes.plot(ranks.mean[i], 0, "o", color=colour, markersize=4.5, zorder=4)
            axes.text(
                end + side_ * 0.02 * (high - low), height, f"{names[i]}  {ranks.mean[i]:.2f}", va="center",
                ha="right" if side_ < 0 else "left", fontsize=9.5, fontfamily=fonts(),
            )  # fmt: skip
    return figure


def draw_pareto(groups: Mapping[str, Sequence[Entry]], cost: str, label: str) -> Figure | None:
    """Return score against a cost, a panel for each group, with the front of those that none beats in both.

    cost: the name of an entry's field. None where it is known of fewer than two entries, or nearly the same of all.
    """
    known = {
        group: [e for e in own if math.isfinite(vars(e)[cost]) and math.isfinite(e.score.value)]
        for group, own in groups.items()
    }
    known = {group: own for group, own in known.items() if len(own) > 1}
    values = [vars(entry)[cost] for own in known.values() for entry in own]
    if not known or max(values) <= 1.1 * min(values):
        return None
    figure, panels = _panels(known, 5.6, 4.3)
    for axes, own in zip(panels, known.values(), strict=False):
        points = [Point(i, vars(e)[cost] / UNITS[cost], e.score.value, 0.0) for i, e in enumerate(own)]
        for point, entry in zip(points, own, strict=True):
            colour = run_style(point.position)["color"]
            if math.isfinite(entry.score.low):
                axes.plot([point.x] * 2, [entry.score.low, entry.score.high], color=colour, linewidth=1.1, alpha=0.55)
            axes.plot(point.x, point.y, "o", color=colour, markersize=7, markeredgecolor="white", zorder=3)
        front = pareto([(point.x, point.y) for point in points])
        axes.step(
            [points[i].x for i in front], [points[i].y for i in front], where="post", color=GREY, linewidth=1.1,
            linestyle=(0, (4, 3)), zorder=1,
        )  # fmt: skip
        _scale(axes, [point.x for point in points])
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.02) if low < 0 else low - 0.06 * (high - low), high + 0.08 * (high - low))
        axes.set(xlabel=label, ylabel="score at the end")
        tidy(axes, "both")
    for axes, own in zip(panels, known.values(), strict=False):
        points = [Point(i, vars(e)[cost] / UNITS[cost], e.score.value, 0.0) for i, e in enumerate(own)]
        label_points(figure, axes, points, dict(enumerate(labels([e.variant for e in own], "method", 28))))
        for text in axes.texts:
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points (cost, score) that no other beats: none costs as little and scores higher, or
    costs less and scores as high. The cheapest first."""  # fmt: skip
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def draw_curves(groups: Mapping[str, Sequence[Entry]]) -> Figure | None:
    """Return the mean score of what was learned so far after each step, a panel for each group; bands span the seeds.

    Joint training, and what has a single step, is a dashed level: where it ends. None where nothing has two steps.
    """
    known = {group: [entry for entry in own if entry.curve][:MOST_LINES] for group, own in groups.items()}
    known = {group: own for group, own in known.items() if any(len(c) > 1 for e in own for c in e.curve)}
    if not known:
        return None
    figure, panels = _panels(known, 5.6, 3.9)
    names = list(dict.fromkeys(entry.variant for own in known.values() for entry in own))
    for axes, own in zip(panels, known.values(), strict=False):
        for entry in own:
            _draw_curve(axes, entry, run_style(names.index(entry.variant)))
        axes.set(xlabel="learning step", ylabel="mean score, learned so far")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
        low, high = axes.dataLim.intervaly
        if low >= 0 and high <= 1:
            axes.set_ylim(0, 1.02)
        tidy(axes)
    handles = []
    joint = {e.variant for own in known.values() for e in own if e.view is not None and e.view.is_joint}
    for place, name in enumerate(names):
        level = {"linestyle": (0, (6, 3)), "marker": ""} if name in joint else {}
        handles.append(Line2D([], [], markersize=5, linewidth=1.6, **{**run_style(place), **level}))
    across = max(1, min(len(names), int(figure.get_figwidth() // 1.7)))
    figure.legend(
        handles, labels(names, "method", 28), loc="outside upper center", ncols=across, frameon=False, fontsize=9,
        prop={"family": fonts(), "size": 9},
    )  # fmt: skip
    return figure


def _draw_curve(axes: Axes, entry: Entry, style: Mapping[str, object]) -> None:
    n_steps = min(len(curve) for curve in entry.curve)
    seeds = np.array([curve[:n_steps] for curve in entry.curve], float)
    if n_steps == 1 or (entry.view is not None and entry.view.is_joint):
        axes.axhline(float(seeds[:, -1].mean()), color=style["color"], linestyle=(0, (6, 3)), linewidth=1.4)
        return
    steps = np.arange(1, n_steps + 1)
    axes.plot(steps, seeds.mean(0), **style, markersize=4, linewidth=1.6)
    if len(seeds) > 1:
        axes.fill_between(steps, seeds.min(0), seeds.max(0), color=style["color"], alpha=0.13, linewidth=0)


def _panels(groups: Mapping[str, Sequence[Entry]], width: float, height: float) -> tuple[Figure, list[Axes]]:
    across = min(len(groups), MOST_ACROSS)
    down = math.ceil(len(groups) / across)
    figure = new_figure(max(6.6, across * width), down * height + 0.4)
    panels = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes, title in zip(panels, labels(list(groups), "group", 44), strict=False):
        axes.set_title(title if len(groups) > 1 else "", fontfamily=fonts(), fontsize=10)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    return figure, panels


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Let an axis be logarithmic where values of several sizes stand on it; one that holds 0 is so from 1 on."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) <= 8 * min(positive):
        low, high = min(values), max(values)
        margin = 0.12 * (high - low) or 1.0
        axes.set_xlim(max(low - margin, -margin), high + margin)
    elif len(positive) == len(values):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.7, max(values) * 1.7)
    else:
        axes.set_xscale("symlog", linthresh=min(positive))
        axes.set_xlim(-0.6 * min(positive), max(values) * 3)

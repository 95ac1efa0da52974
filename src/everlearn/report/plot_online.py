"""Pictures of online runs: how one learned, and several side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from everlearn.report.online_views import WINDOW, OnlineView, group_names
from everlearn.report.style import COLOURS, GREY, SOFT, fonts, labels, new_figure, run_style, tidy

SIX = 6
TOP = 1.03  # of an axis of shares, so that what lies at 1 is seen
Panel = Callable[[Axes, Sequence[OnlineView], Sequence[str]], None]


def draw_learning(views: Sequence[OnlineView]) -> Figure:
    """Return one run's picture: held-out accuracy, episodes as they went, types and difficulties at first and last."""
    view, names = views[0], [views[0].name]
    figure = new_figure(10.5, 7.2)
    (curve, episodes), (types, levels) = figure.subplots(2, 2)
    _curves(curve, [view], names)
    curve.set_title("held-out problems")
    _episodes(episodes, view)
    _first_and_last(types, view, "by_type")
    _first_and_last(levels, view, "by_difficulty")
    return figure


def draw_six(views: Sequence[OnlineView]) -> Figure:
    """Return six panels over several runs: final accuracy, improvement, curves, loss, types, efficiency."""
    return _panels(views, PANELS[:SIX])


def draw_twelve(views: Sequence[OnlineView]) -> Figure:
    """Return the six panels and six more: time, difficulties, instant learning, forgetting, memory, peak."""
    return _panels(views, PANELS)


def draw_types(views: Sequence[OnlineView]) -> Figure:
    """Return a panel for each type, in the order in which they came: each run's held-out accuracy over the episodes.

    The stretch in which the type was learned is shaded.
    """
    stretches = views[0].stretches()
    names = labels([view.name for view in views], "run", 22)
    figure = new_figure(1.0 + 2.5 * len(stretches), 3.4)
    panels = figure.subplots(1, len(stretches), sharey=True, squeeze=False).ravel()
    for axes, (name, (first, last)) in zip(panels, stretches.items(), strict=True):
        axes.axvspan(first - 1, last, color=GREY, alpha=0.18, linewidth=0)
        for position, view in enumerate(views):
            _curve(axes, view.results["by_type"][name]["curve"], position)
        _as_shares(axes, "held-out accuracy" if axes is panels[0] else "")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("episodes")
    _legend(figure, names)
    return figure


def _panels(views: Sequence[OnlineView], panels: Sequence[tuple[str, Panel]]) -> Figure:
    names = labels([view.name for view in views], "run", 22)
    figure = new_figure(13.5, 3.7 * (len(panels) // 3) + 0.6)
    figure.get_layout_engine().set(h_pad=0.14)
    for axes, (title, draw) in zip(figure.subplots(len(panels) // 3, 3).ravel(), panels, strict=True):
        draw(axes, views, names)
        axes.set_title(title, fontsize=10)
    _legend(figure, names)
    return figure


def _legend(figure: Figure, names: Sequence[str]) -> None:
    handles = [Line2D([], [], label=name, **_line_style(i)) for i, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(names), 5), frameon=False,
                  prop={"family": fonts(), "size": 9})  # fmt: skip


def _line_style(position: int) -> dict[str, Any]:
    return {**run_style(position), "markersize": 4, "linewidth": 1.6}


def _curves(axes: Axes, views: Sequence[OnlineView], names: Sequence[str]) -> None:
    """Held-out accuracy over episodes; bands are 95% intervals."""
    for position, view in enumerate(views):
        _curve(axes, view.results["curve"], position)
    _as_shares(axes, "accuracy")
    axes.set_xlabel("episodes")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curve(axes: Axes, points: Sequence[Mapping[str, Any]], position: int) -> None:
    """One run's line through its scorings, with a band for the interval."""
    x = [point["episode"] for point in points]
    axes.plot(x, [point["value"] for point in points], **_line_style(position))
    low, high = ([_or_value(point, end) for point in points] for end in ("low", "high"))
    axes.fill_between(x, low, high, color=run_style(position)["color"], alpha=0.12, linewidth=0)


def _or_value(entry: Mapping[str, Any], end: str) -> float:
    """Return an end of the interval, inside -1 to 1, where shares and their differences lie; or the value itself."""
    return entry["value"] if entry[end] is None else min(1.0, max(-1.0, entry[end]))


def _episodes(axes: Axes, view: OnlineView) -> None:
    """Rolling accuracy before and after the step, and the loss."""
    right = view.rolling("correct")
    x = np.arange(1, len(right) + 1)
    axes.plot(x, right, color=COLOURS[0], label="answered rightly before the step")
    if view.answers_again:
        axes.plot(x, view.rolling("correct_after"), color=COLOURS[2], label="after the step", linestyle="--")
    _as_shares(axes, f"share, last {WINDOW} episodes")
    axes.set_xlabel("episodes")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("problems to learn from")
    beside = axes.twinx()
    beside.plot(x, view.rolling("loss"), color=COLOURS[1], linewidth=1, alpha=0.8, label="loss")
    beside.set_ylabel("loss (nats a token)", color=COLOURS[1])
    beside.set_ylim(bottom=0)
    beside.spines[["top"]].set_visible(False)
    _legend_below(axes)


def _first_and_last(axes: Axes, view: OnlineView, key: str) -> None:
    groups = view.results[key]
    for place, entry in enumerate(groups.values()):
        for shift, end, colour in ((-0.18, "initial", "#b8bfc6"), (0.18, "final", COLOURS[0])):
            _bar(axes, place + shift, entry[end], colour, width=0.34, label=end if place == 0 else None)
    axes.set_xticks(range(len(groups)), labels(list(groups), "group", 14), fontfamily=fonts(), fontsize=9)
    _as_shares(axes, "accuracy")
    axes.set_title(key.replace("_", " "))
    _legend_below(axes)


def _bar(
    axes: Axes, x: float, entry: Mapping[str, Any], colour: Any, width: float = 0.6, label: str | None = None
) -> None:
    """A bar with its interval."""
    value = entry["value"]
    axes.bar(x, value, width=width, color=colour, label=label)
    low, high = _or_value(entry, "low"), _or_value(entry, "high")
    axes.errorbar(
        x, value, yerr=[[max(0.0, value - low)], [max(0.0, high - value)]], color="#333333", capsize=2, linewidth=1,
        marker="o", markersize=2.5,
    )  # fmt: skip


def _bars(key: str) -> Panel:
    """Return a panel with a bar for each run's entry of its results."""

    def draw(axes: Axes, views: Sequence[OnlineView], names: Sequence[str]) -> None:
        for place, view in enumerate(views):
            _bar(axes, place, view.results[key], run_style(place)["color"])
        _no_ticks(axes)
        tidy(axes)
        axes.axhline(0, color=GREY, linewidth=0.8)
        if key != "improvement":
            axes.set_ylim(0, TOP)

    return draw


def _values(of: Callable[[OnlineView], float], unit: str) -> Panel:
    """Return a panel with a bar for a plain number of each run."""

    def draw(axes: Axes, views: Sequence[OnlineView], names: Sequence[str]) -> None:
        for place, view in enumerate(views):
            axes.bar(place, of(view), width=0.6, color=run_style(place)["color"])
        _no_ticks(axes)
        axes.set_ylabel(unit)
        _from_zero(axes)

    return draw


def _loss(axes: Axes, views: Sequence[OnlineView], names: Sequence[str]) -> None:
    for place, view in enumerate(views):
        loss = view.rolling("loss")
        axes.plot(
            np.arange(1, len(loss) + 1), loss, color=run_style(place)["color"], linestyle=run_style(place)["linestyle"]
        )
    axes.set_xlabel("episodes")
    axes.set_ylabel(f"nats a token, last {WINDOW}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _from_zero(axes)


def _groups(key: str) -> Panel:
    """Return a panel with each run's final accuracy by type or difficulty."""

    def draw(axes: Axes, views: Sequence[OnlineView], names: Sequence[str]) -> None:
        groups = group_names(views, key)
        width = 0.8 / len(views)
        for place, view in enumerate(views):
            for i, group in enumerate(groups):
                if group in view.results[key]:
                    x = i - 0.4 + (place + 0.5) * width
                    _bar(axes, x, view.results[key][group]["final"], run_style(place)["color"], width)
        axes.set_xticks(range(len(groups)), labels(groups, "group", 14), fontfamily=fonts(), fontsize=8)
        _as_shares(axes, "final accuracy")

    return draw


def _efficiency(axes: Axes, views: Sequence[OnlineView], names: Sequence[str]) -> None:
    for place, view in enumerate(views):
        style = run_style(place)
        axes.scatter(
            view.seconds_per_episode(), view.results["improvement"]["value"], color=style["color"],
            marker=style["marker"], s=50, zorder=3,
        )  # fmt: skip
    axes.set_xlabel("seconds an episode")
    axes.set_ylabel("improvement")
    axes.margins(0.15)
    axes.set_xlim(left=0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    tidy(axes, "both")


def _lost(axes: Axes, views: Sequence[OnlineView], names: Sequence[str]) -> None:
    """Share of right answers lost by the next scoring, in the first and in the second half."""
    width = 0.8 / len(views)
    for place, view in enumerate(views):
        for i, key in enumerate(("lost_early", "lost_late")):
            values = view.over_seeds(key)
            if values:
                axes.bar(i - 0.4 + (place + 0.5) * width, np.mean(values), width, color=run_style(place)["color"])
    axes.set_xticks((0, 1), ("first half", "second half"), fontsize=9)
    axes.set_ylabel("share lost between scorings")
    _from_zero(axes)


def _instant(axes: Axes, views: Sequence[OnlineView], names: Sequence[str]) -> None:
    for place, view in enumerate(views):
        values = view.over_seeds("instant_learning")
        axes.bar(place, np.mean(values) if values else 0.0, width=0.6, color=run_style(place)["color"])
    _no_ticks(axes)
    axes.set_ylabel("share of episodes")
    _from_zero(axes)
    if not any(view.answers_again for view in views):
        axes.set_ylim(0, 1)
        axes.text(0.5, 0.5, "not answered again", ha="center", va="center", transform=axes.transAxes, color=SOFT)


def _no_ticks(axes: Axes) -> None:
    axes.set_xticks([])


def _legend_below(axes: Axes) -> None:
    """Name the lines or bars outside the panel, which they may fill."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False, fontsize=8)


def _from_zero(axes: Axes) -> None:
    """Let the axis begin at 0, and go on to something where all is 0."""
    highest = axes.get_ylim()[1]
    axes.set_ylim(0, highest if axes.dataLim.ymax > 0 else 1)
    tidy(axes)


def _as_shares(axes: Axes, label: str) -> None:
    axes.set_ylim(0, TOP)
    axes.set_ylabel(label)
    tidy(axes)


PANELS: tuple[tuple[str, Panel], ...] = (
    ("final accuracy", _bars("final_accuracy")),
    ("improvement", _bars("improvement")),
    ("held-out accuracy", _curves),
    ("loss on the problems as they came", _loss),
    ("by type", _groups("by_type")),
    ("improvement against time", _efficiency),
    ("time", _values(OnlineView.seconds_per_episode, "seconds an episode")),
    ("by difficulty", _groups("by_difficulty")),
    ("right only after the step", _instant),
    ("forgetting", _lost),
    ("kept by the strategies", _values(lambda view: view.kept_bytes() / 2**20, "MiB")),
    ("peak accuracy", _bars("peak_accuracy")),
)

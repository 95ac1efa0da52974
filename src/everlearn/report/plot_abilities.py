"""What is kept of what the base model could do: a panel for each ability, from before the first step on."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from everlearn.report.abilities import Ability, abilities_of
from everlearn.report.style import fonts, labels, new_figure, run_style, tidy
from everlearn.report.views import RunView

ACROSS = 3  # panels in a row
MOST_BANDS = 3  # runs whose intervals can be told apart


def draw_abilities(views: Sequence[RunView]) -> Figure | None:
    """Return a panel for each ability that was measured in a run, None where there is none."""
    found = [{one.name: one for one in abilities_of(view.run, view.seeds)} for view in views]
    names = list(dict.fromkeys(name for abilities in found for name in abilities))
    if not names:
        return None
    across = min(len(names), ACROSS)
    down = math.ceil(len(names) / across)
    figure = new_figure(max(across * 3.6, 5.4), down * 2.7 + 0.5)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, name, title in zip(panels, names, labels(names, "ability", 34), strict=False):
        for position, abilities in enumerate(found):
            if name in abilities:
                _line(axes, abilities[name], position, with_band=len(views) <= MOST_BANDS)
        _finish(axes, title, next(abilities[name] for abilities in found if name in abilities))
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    if len(views) > 1:
        styles = [run_style(position) for position in range(len(views))]
        handles = [panels[0].plot([], [], **style, markersize=4, linewidth=1.6)[0] for style in styles]
        names = labels([view.name for view in views], "run", 32)
        legend = figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(views)), frameon=False,
                               fontsize=9)  # fmt: skip
        for text in legend.get_texts():
            text.set_fontfamily(fonts())
    return figure


def _line(axes: Axes, ability: Ability, position: int, *, with_band: bool) -> None:
    places = [place for place, one in enumerate(ability.shown) if one is not None]
    shown = [ability.shown[place] for place in places]
    style = run_style(position)
    axes.plot(places, [one.value for one in shown], **style, markersize=4, linewidth=1.6, clip_on=False)
    if not with_band:
        return
    known = ~np.isnan([one.low for one in shown])
    axes.fill_between(
        places, [one.low for one in shown], [one.high for one in shown], where=known, color=style["color"], alpha=0.13,
        linewidth=0,
    )  # fmt: skip


def _finish(axes: Axes, title: str, ability: Ability) -> None:
    tidy(axes)
    axes.set_title(title, fontfamily=fonts(), fontsize=10)
    axes.set_ylabel(ability.title, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: "before" if place == 0 else f"{place:.0f}"))
    axes.set_xlabel("learning step", fontsize=9)
    axes.tick_params(labelsize=8)
    if ability.title == "perplexity":
        values = [value for line in axes.lines for value in line.get_ydata()]
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(which="minor", labelsize=7)
        axes.set_ylim(min(values) / 2, max(values) * 2)  # bands of few texts reach far
    elif ability.metric == "negative_kl":
        axes.set_ylim(0, max(axes.dataLim.intervaly[1] * 1.08, 0.01))
    else:
        axes.set_ylim(0, 1.02)

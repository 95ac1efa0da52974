"""Pictures of online runs over labelled rows: how each row was answered before it was learned, loss and rate."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from everlearn.report.style import COLOURS, GREY, fonts, labels, new_figure, run_style, tidy

WORDS = {"kappa": "Cohen's kappa", "macro_f1": "macro F1", "entity_f1": "entity F1", "mean_error": "mean error"}
WORDS = {"kappa": "Cohen's kappa", "macro_f1": "macro F1", "entity_f1": "entity F1", "mean_error": "mean error"}
TOP = 1.03  # of an axis of shares, so that what lies at 1 is seen


def draw_stream(seed: Mapping[str, Any]) -> Figure:
    """Return one run's picture, of one seed's results: scores of late rows, and their loss beside the learning rate."""
    figure = new_figure(9.5, 6.4)
    scores, losses = figure.subplots(2, 1, sharex=True)
    main = seed["score"]["name"]
    x = [point["episode"] for point in seed["curve"]]
    shown = [main] + [name for name in ("kappa", "macro_f1") if name in seed["faded"] and name != main]
    for name, colour, style in zip(shown, COLOURS, ("-", "--", ":"), strict=False):
        scores.plot(x, _faded(seed, name), color=colour, linestyle=style, label=_words(name))
    if main != "entity_f1":
        simple, told = ("majority", "the most frequent class") if main == "accuracy" else ("running_mean", "the mean")
        scores.plot(x, _faded(seed, simple), color=GREY, linestyle="-.", label=told)
    _scale(scores, main, "late rows, faded")
    _drifts(scores, seed)
    _legend(scores, -0.08)
    _loss(losses, seed)
    _drifts(losses, seed)
    losses.set_xlabel("rows", loc="right")
    return figure


def draw_streams(seeds: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Return several runs side by side, each by one seed's results: score, loss and rate of late rows."""
    figure = new_figure(12.5, 4.2)
    names = labels(list(names), "run", 22)
    score, loss, rate = figure.subplots(1, 3)
    for position, seed in enumerate(seeds):
        x = [point["episode"] for point in seed["curve"]]
        style = {**run_style(position), "markersize": 0, "linewidth": 1.6}
        score.plot(x, _faded(seed, seed["score"]["name"]), **style)
        loss.plot(x, [point["loss"] for point in seed["curve"]], **style)
        rate.plot(x, [point["learning_rate"] for point in seed["curve"]], **style)
    _scale(score, seeds[0]["score"]["name"], f"{_words(seeds[0]['score']['name'])} of late rows")
    loss.set_ylabel("loss of late rows (nats)")
    loss.set_ylim(bottom=0)
    tidy(loss)
    rate.set_ylabel("learning rate")
    rate.set_yscale("log")
    tidy(rate)
    for axes in (score, loss, rate):
        axes.set_xlabel("rows")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles = [Line2D([], [], label=name, **run_style(i)) for i, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(names), 5), frameon=False,
                  prop={"family": fonts(), "size": 9})  # fmt: skip
    return figure


def _loss(axes: Axes, seed: Mapping[str, Any]) -> None:
    """The loss, and on an axis of its own the rate, in powers of ten."""
    x = [point["episode"] for point in seed["curve"]]
    axes.plot(x, [point["loss"] for point in seed["curve"]], color=COLOURS[1], label="loss before learning")
    axes.set_ylabel("loss, faded (nats)", color=COLOURS[1])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    tidy(axes)
    rates = [point["learning_rate"] for point in seed["curve"]]
    beside = axes.twinx()
    beside.plot(x, rates, color=COLOURS[2], linestyle="--")
    beside.set_yscale("log")
    beside.set_ylim(min(rates) / 2, max(rates) * 2)
    beside.set_ylabel("learning rate", color=COLOURS[2])
    beside.spines[["top"]].set_visible(False)
    axes.plot([], [], color=COLOURS[2], linestyle="--", label="learning rate")
    _legend(axes, -0.2)


def _drifts(axes: Axes, seed: Mapping[str, Any]) -> None:
    for number, place in enumerate(seed["drifts"]):
        axes.axvline(
            place, color=GREY, linewidth=0.9, alpha=0.7, zorder=0, label="drift noticed" if number == 0 else None
        )


def _faded(seed: Mapping[str, Any], name: str) -> list[float]:
    return [point["faded"][name] for point in seed["curve"]]


def _words(name: str) -> str:
    return WORDS.get(name, name)


def _scale(axes: Axes, main: str, label: str) -> None:
    """Let the axis go from 0 (kappa may lie below) to 1, or of errors on to the largest."""
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), high if main == "mean_error" else TOP)
    axes.set_ylabel(label)
    tidy(axes)


def _legend(axes: Axes, below: float) -> None:
    """Name the lines outside the panel; below: its height from the panel's lower edge, as a share of the panel's."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncols=5, frameon=False, fontsize=8)

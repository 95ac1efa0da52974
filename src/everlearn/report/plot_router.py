"""Runs with a library of experts: each decision beside the bar at that time, and how well p(reuse) held."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from everlearn.evaluation.reliability import Measure, Reliability, reliability
from everlearn.report.style import COLOURS, GREY, fonts, labels, new_figure, tidy
from everlearn.report.text import number
from everlearn.report.views import RunView

Lines = Sequence[Mapping[str, Any]]  # decisions, oldest first, as a library's log and a run's facts tell them
TITLE = "What was done about each task"
CAPTION = (
    "The chance that the best expert would do, as told before, by task; from the line, the bar, on it is reused. A "
    "cross: reusing it was, or would have been, worse than a new expert."
)
LOOKS = {
    "create": (GREY, "s"), "fork": (COLOURS[5], "^"), "compose": (COLOURS[3], "D"), "adapt": (COLOURS[0], "v"),
    "reuse": (COLOURS[2], "o"),
}  # fmt: skip
FALSE = COLOURS[1]
ACROSS = 3
FEWEST = 5  # outcomes that are drawn


def draw_decisions(views: Sequence[RunView]) -> Figure | None:
    """Return a panel for each run with a library of experts, of its first seed; None where there is no such run."""
    found = {view.name: of_seeds[0] for view in views if (of_seeds := decisions_of(view)) and of_seeds[0]}
    return decisions_figure(found) if found else None


def draw_reliability(views: Sequence[RunView]) -> Figure | None:
    """Return a reliability diagram for each run with a library of experts, over its seeds; None without outcomes."""
    pooled = {view.name: [line for seed in decisions_of(view) for line in seed] for view in views}
    found = {
        name: reliability(*known) for name, lines in pooled.items() if len((known := outcomes(lines))[0]) >= FEWEST
    }
    return reliability_figure(found) if found else None


def outcomes(decisions: Lines) -> tuple[list[float], list[bool]]:
    """Return p of the expert that a decision was about, as told before it, and whether reuse was right, where known."""
    known = [
        (line["candidates"][0]["p"], bool(line["reuse_was_right"]))
        for line in decisions
        if line.get("reuse_was_right") is not None and line["candidates"] and line["candidates"][0]["p"] is not None
    ]
    return [p for p, _ in known], [right for _, right in known]


def decisions_figure(runs: Mapping[str, Lines]) -> Figure:
    """Return a panel for each of some decisions: p of the best expert, what was done, what came of it, and tau.

    Args:
        runs: {name: decisions}, as `Decision.as_json` with `reuse_was_right`, true, false or null for not known.
    """
    figure = new_figure(9.6, 2.5 * len(runs) + 0.7)
    panels = figure.subplots(len(runs), 1, squeeze=False)[:, 0]
    for axes, name, lines in zip(panels, labels(list(runs), "run", 40), runs.values(), strict=True):
        _decided(axes, lines)
        made = sum(line["action"] in ("create", "fork") for line in lines)
        title = f"{name}: {made} of {len(lines)} tasks began an expert"
        axes.set_title(title, fontsize=10, loc="left", fontfamily=fonts())
    panels[-1].set_xlabel("task")
    handles = [
        *action_marks(runs.values()),
        Line2D([], [], color=FALSE, marker="x", linestyle="", markersize=8, label="reuse was, or would be, worse"),
        Line2D([], [], color=GREY, marker="o", markerfacecolor="none", linestyle="", label="not known"),
        Line2D([], [], color="black", linewidth=1.1, label="bar (tau, capped)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.5)
    return figure


def reliability_figure(runs: Mapping[str, Reliability]) -> Figure:
    """Return a reliability diagram for each of some measurements, with the numbers beside what a calibrated p shows."""
    across, down = min(len(runs), ACROSS), -(-len(runs) // ACROSS)
    figure = new_figure(max(3.9 * across, 4.6), 4.7 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[len(runs) :]:
        axes.set_visible(False)
    for axes, name, found in zip(panels, labels(list(runs), "run", 34), runs.values(), strict=False):
        _diagram(axes, found)
        axes.set_title(f"{name}, {found.n} outcomes", fontsize=10, loc="left", fontfamily=fonts())
    return figure


def decisions_of(view: RunView) -> list[list[Mapping[str, Any]]]:
    """Return the decisions of each seed, in the order of its tasks."""
    found = []
    for entry in view.results["seeds"]:
        if entry["seed"] in view.seeds:
            steps = sorted(entry["cost"]["steps"], key=lambda step: step["after"])
            facts = [step["strategy_facts"].get("experts", {}) for step in steps]
            found.append([one for one in facts if "action" in one])
    return found


def action_marks(runs: Iterable[Lines]) -> list[Line2D]:
    """Return what a legend shows for each action that occurs in some decisions."""
    done = {line["action"] for lines in runs for line in lines}
    return [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=action)
        for action, (colour, marker) in LOOKS.items()
        if action in done
    ]


def _decided(axes: Axes, lines: Lines) -> None:
    tidy(axes)
    of_p = any(line["candidates"] and line["candidates"][0]["p"] is not None for line in lines)
    for x, line in enumerate(lines, start=1):
        colour, marker = LOOKS[line["action"]]
        best = line["candidates"][0] if line["candidates"] else None
        y = 0.0 if best is None else best["similarity"] if best["p"] is None else best["p"]
        known = line.get("reuse_was_right")
        face = colour if known is not None or best is None else "none"
        axes.plot(x, y, color=colour, marker=marker, markerfacecolor=face, markersize=6, clip_on=False, zorder=3)
        if known is False:
            axes.plot(x, y, color=FALSE, marker="x", markersize=9, markeredgewidth=1.4, clip_on=False, zorder=4)
    bars = [(x, line["tau"]) for x, line in enumerate(lines, start=1) if line["tau"] is not None]
    if bars:
        axes.step(*zip(*bars, strict=True), where="mid", color="black", linewidth=1.1, zorder=2)
    axes.set_ylabel("p(reuse)" if of_p else "similarity")
    axes.set_xlim(0.4, len(lines) + 0.6)
    axes.set_ylim(min(0.0, *axes.dataLim.intervaly), 1.04 if not bars else max(1.04, max(y for _, y in bars) + 0.04))
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))


def _diagram(axes: Axes, found: Reliability) -> None:
    tidy(axes, "both")
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=(0, (4, 3)))
    most = max(one.n for one in found.bins)
    for one in found.bins:
        axes.bar(one.low, 0.18 * one.n / most, one.high - one.low, align="edge", color="#e9edf1", zorder=0)
        below, above = one.right.value - one.right.low, one.right.high - one.right.value
        axes.errorbar(
            one.p, one.right.value, [[max(below, 0)], [max(above, 0)]], color=COLOURS[0], marker="o", markersize=5,
            linewidth=1.1, capsize=2,
        )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.set_ylabel("share of reuse that was right")
    told = (_told("Brier", found.brier), _told("log loss", found.log_loss), _told("ECE", found.ece))
    axes.set_xlabel("p(reuse), told before; bars: how often\n\n" + "\n".join(told), fontsize=8.5)


def _told(name: str, measure: Measure) -> str:
    one, other = measure.found, measure.if_calibrated
    return (
        f"{name} {number(one.value)} [{number(one.low)}, {number(one.high)}]; if calibrated {number(other.value)} "
        f"[{number(other.low)}, {number(other.high)}]"
    )

"""Pictures of runs by reinforcement: success on every task, how learning went, gains, and the others over KL."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from everlearn.report.policy_records import Answers, Measurement, mean_of
from everlearn.report.policy_results import DECODED, Phase
from everlearn.report.policy_views import Line, PolicyView, mean_line, repeating, step_label
from everlearn.report.records import WARM_START
from everlearn.report.style import COLOURS, GREY, SOFT, fonts, labels, new_figure, run_style, tidy

TOP = 1.03  # of an axis of shares, so that what lies at 1 is seen
SHADE = "#e9edf1"
MOST_COLUMNS = 4  # runs whose curves stand side by side
LOOKS = {"greedy": ("-", "greedy"), "sampled": ((0, (4, 2)), "sampled at temperature 1")}
ACROSS = 4
FEW = 8  # points, of which each is marked: one alone makes no line
MOST_BARS = 48  # in a panel

Step = tuple[str, int]  # name and round
# title, unit, what tells it: a number of the iterations, or of the measurements
_Source = Callable[[PolicyView], list[Line]]
_SIGNALS: tuple[tuple[str, str, _Source], ...] = (
    ("right answers while learning", "share", lambda one: one.told("success")),
    ("signal", "share of problems", lambda one: one.told("signal")),
    ("entropy", "nats a token", lambda one: one.told("entropy")),
    ("response length", "tokens", lambda one: one.told("length")),
    ("KL from the start", "nats a token", lambda one: one.measured(lambda m: m.numbers.get("kl_to_start"))),
    ("weight change in the step", "‖Δθ‖ / ‖θ‖", lambda one: one.told("weight_change")),
    ("gradient norm", "before clipping", lambda one: one.told("gradient_norm")),
    ("dormant neurons", "share", lambda one: one.measured(lambda m: m.numbers.get("dormant"))),
)


def draw_success(views: Sequence[PolicyView]) -> Figure | None:
    """Return a row of panels for each task, a column for each run: success over the iterations.

    The steps that learn the task are shaded; the mean over seeds is drawn, and thin lines for each. None for more than
    four runs.
    """
    shown = [one for one in views if one.spans]
    if not shown or len(views) > MOST_COLUMNS:
        return None
    tasks = list(dict.fromkeys(task for one in shown for task in one.tasks))
    width = 9.6 if len(shown) == 1 else 4.4 * len(shown)
    figure = new_figure(width, 1.45 * len(tasks) + 1.5)
    panels = figure.subplots(len(tasks), len(shown), squeeze=False, sharex="col", sharey=True)
    heads, names = labels(tasks, "task", 14), labels([one.name for one in shown], "run", 28)
    for column, one in zip(panels.T, shown, strict=True):
        for axes, task, place in zip(column, tasks, range(len(tasks)), strict=True):
            colour = COLOURS[place % len(COLOURS)]
            _steps(axes, one, {span.begin for span, own in _own(one) if task in own})
            for kind, of in DECODED.items():
                _lines(axes, one.measured(_success(task, of)), {"color": colour, "linestyle": LOOKS[kind][0]})
            axes.set_ylim(0, TOP)
            tidy(axes)
        above = _name_steps(column[0], one, column_width=width / len(shown))
        if len(shown) > 1:
            name = names[shown.index(one)]
            column[0].set_title(name, fontfamily=fonts(), fontsize=11, fontweight="bold", pad=above)
        column[-1].set_xlabel("iteration")
        column[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    for axes, head in zip(panels[:, 0], heads, strict=True):
        axes.set_ylabel(head, fontfamily=fonts(), fontsize=9, fontweight="bold")
    figure.supylabel("success on held-out problems, by task", fontsize=10)
    handles = [Line2D([], [], color=GREY, linestyle=line, label=text) for line, text in LOOKS.values()]
    handles.append(Patch(facecolor=SHADE, label="learned here"))
    if any(len(one.phases) > 1 for one in shown):
        handles.append(Line2D([], [], color=GREY, linewidth=0.7, alpha=0.6, label="each seed"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def draw_signals(views: Sequence[PolicyView]) -> Figure | None:
    """Return small panels over the iterations: signal, entropy, length, KL, weights, gradients, dormant neurons.

    A line for each run, the mean over its seeds; of one run thin lines for each seed. None where nothing was told.
    """
    found = [(title, unit, [of(one) for one in views]) for title, unit, of in _SIGNALS]
    found = [(title, unit, lines) for title, unit, lines in found if any(lines)]
    if not found:
        return None
    down = math.ceil(len(found) / ACROSS)
    figure = new_figure(12.6, 2.5 * down + 0.6)
    figure.get_layout_engine().set(h_pad=0.12)
    panels = figure.subplots(down, ACROSS, squeeze=False).ravel()
    longest = max(views, key=lambda one: len(one.spans))
    alike = all(tuple(longest.spans[: len(one.spans)]) == tuple(one.spans) for one in views)
    for axes, (title, unit, by_run) in zip(panels, found, strict=False):
        if alike:
            _steps(axes, longest, set())
        for position, lines in enumerate(by_run):
            style = run_style(position)
            _lines(axes, lines, {name: style[name] for name in ("color", "linestyle")}, seeds=len(views) == 1)
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(unit, fontsize=8)
        axes.tick_params(labelsize=8)
        highest = axes.dataLim.ymax
        if unit.startswith("share") and title != "dormant neurons":
            axes.set_ylim(0, TOP)
        elif axes.dataLim.ymin >= 0:
            axes.set_ylim(0, 1.08 * highest if highest > 0 else 1)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        tidy(axes)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    figure.supxlabel("iteration", fontsize=10)
    if len(views) > 1:
        _runs_legend(figure, views, _line_handle)
    return figure


def draw_gains(views: Sequence[PolicyView]) -> Figure | None:
    """Return four panels of bars: what each task gained while it was learned, and what the others did meanwhile; of
    likeliest answers and at temperature 1.

    Warm starts stand apart, in a table. None where no task was learned, or there are too many bars.
    """
    entries = [{(entry["name"], entry["round"]): entry for entry in _gained(one)} for one in views]
    steps = list(dict.fromkeys(step for one in entries for step in one))
    if not steps or len(steps) * len(views) > MOST_BARS:
        return None
    repeats = repeating(steps)
    names = labels([step_label(*step, step[0] in repeats) for step in steps], "step", 18)
    figure = new_figure(max(8.6, 1.6 + 2 * len(steps) * (0.5 + 0.28 * len(views))), 6.2)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for (own, others), kind in zip(panels, DECODED, strict=True):
        own.set_ylabel(LOOKS[kind][1])
        changes = [{step: entry[kind] for step, entry in by_step.items()} for by_step in entries]
        _grouped(own, changes, steps)
        _grouped(others, [{step: one["others"] for step, one in by_step.items()} for by_step in changes], steps)
    panels[0, 0].set_title("gain of the task that is learned", fontsize=10.5)
    panels[0, 1].set_title("change of the others meanwhile", fontsize=10.5)
    turned = (
        {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(steps) * max(map(len, names)) > 44 else {}
    )
    for axes in panels[1]:
        axes.set_xticks(range(len(steps)), names, fontfamily=fonts(), fontsize=9, **turned)
    figure.supylabel("change in success, from the task's own start", fontsize=10)
    if len(views) > 1:
        _runs_legend(figure, views, _bar_handle)
    return figure


def draw_divergence(views: Sequence[PolicyView]) -> Figure | None:
    """Return a panel for each learning step: mean success on the other tasks over KL from the start of the run.

    A line for each seed, from where the step began (open) to its end (filled). None where no run has both numbers.

    Source: Shenfeld et al. 2025, RL's Razor: Why Online Reinforcement Learning Forgets Less, arXiv 2509.04259.
    """
    paths = [{step: lines for step, lines in _paths(one).items() if lines} for one in views]
    steps = list(dict.fromkeys(step for one in paths for step in one))
    if not steps:
        return None
    repeats = repeating(steps)
    names = labels([step_label(*step, step[0] in repeats) for step in steps], "step", 24)
    across = min(len(steps), ACROSS)
    down = math.ceil(len(steps) / across)
    figure = new_figure(max(3.1 * across + 0.8, 5.4), 2.9 * down + 0.7)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, step, name in zip(panels, steps, names, strict=False):
        for position, by_step in enumerate(paths):
            style, colour = run_style(position), run_style(position)["color"]
            for x, y in by_step.get(step, ()):
                axes.plot(x, y, color=colour, linestyle=style["linestyle"], linewidth=1.2, alpha=0.85)
                dot = {
                    "marker": style["marker"],
                    "markersize": 6,
                    "markeredgecolor": colour,
                    "color": colour,
                    "clip_on": False,
                }
                axes.plot(x[:1], y[:1], **dot, markerfacecolor="white")
                axes.plot(x[-1:], y[-1:], **dot)
        axes.set_title(f"while {name} is learned", fontfamily=fonts(), fontsize=10)
        axes.tick_params(labelbottom=True)
        tidy(axes, "both")
    drawn = [axes.dataLim for axes in panels[: len(steps)]]
    panels[0].set_xlim(0, 1.06 * max(one.xmax for one in drawn) or 1)
    panels[0].set_ylim(max(0, min(one.ymin for one in drawn) - 0.08), min(TOP, max(one.ymax for one in drawn) + 0.08))
    for axes in panels[len(steps) :]:
        axes.set_visible(False)
    figure.supxlabel("KL from the start of the run (nats a token)", fontsize=10)
    figure.supylabel("mean success on the other tasks", fontsize=10)
    if len(views) > 1:
        _runs_legend(figure, views, _dot_handle)
    return figure


def _gained(view: PolicyView) -> list[Mapping[str, Any]]:
    """Return the results of the steps that learn a task, which warm starts don't, and were measured since."""
    return [entry for entry in view.entry["phases"] if not entry["warm_start"] and entry["greedy"]["gain"] is not None]


def _success(task: str, of: Callable[[Answers], Sequence[float]]) -> Callable[[Measurement], float | None]:
    return lambda measured: mean_of(of(measured.tasks[task])) if task in measured.tasks else None


def _own(view: PolicyView) -> list[tuple[Any, tuple[str, ...]]]:
    """Return each step's span and the tasks that it learns."""
    longest = max(view.phases.values(), key=len)
    return [(span, phase.own) for span, phase in zip(view.spans, longest, strict=True)]


def _paths(view: PolicyView) -> dict[Step, list[Line]]:
    """Return for each step that learns a task, of each seed, success on the others over KL from the start."""
    found: dict[Step, list[Line]] = {}
    for phases in view.phases.values():
        learning = [phase for phase in phases if not phase.is_warm_start and phase.others]
        for phase in learning:
            points = [_point(phase, one) for one in (phase.start, *phase.measured)]
            known = [(x, y) for x, y in points if x is not None]
            if len(known) > 1:
                found.setdefault((phase.name, phase.round), []).append(tuple(map(np.array, zip(*known, strict=True))))
    return found


def _point(phase: Phase, measured: Measurement) -> tuple[float | None, float]:
    success = [mean_of(measured.tasks[task].greedy) for task in phase.others]
    return measured.numbers.get("kl_to_start"), sum(success) / len(success)


def _lines(axes: Axes, lines: Sequence[Line], look: Mapping[str, Any], *, seeds: bool = True) -> None:
    """Draw the mean of the seeds' lines, and thin ones for each."""
    if not lines:
        return
    if seeds and len(lines) > 1:
        for x, y in lines:
            axes.plot(x, y, **look, linewidth=0.7, alpha=0.4)
    x, y = mean_line(lines)
    axes.plot(x, y, **look, linewidth=1.7, marker="o" if len(x) < FEW else "", markersize=3)


def _steps(axes: Axes, view: PolicyView, shaded: set[float]) -> None:
    """Mark where steps begin and end; shade those that begin at some places."""
    for span in view.spans:
        if span.begin in shaded:
            axes.axvspan(span.begin, span.end, color=SHADE, linewidth=0, zorder=0)
        if span.begin > 0:
            axes.axvline(span.begin, color="#b8bfc6", linewidth=0.8, zorder=0.5)
    axes.set_xlim(0, view.spans[-1].end)


def _name_steps(axes: Axes, view: PolicyView, column_width: float) -> float:
    """Write the steps' names above a panel: level where they all have room, else slanted.

    Returns:
        How far they reach, in points.
    """
    of_tasks = iter(labels([span.label for span in view.spans if not span.is_warm_start], "step", 18))
    names = [WARM_START if span.is_warm_start else next(of_tasks) for span in view.spans]
    whole = view.spans[-1].end
    fits = all(
        0.085 * len(name) < 0.85 * column_width * (span.end - span.begin) / whole
        for name, span in zip(names, view.spans, strict=True)
    )
    look = {"ha": "center"} if fits else {"ha": "left", "rotation": 35, "rotation_mode": "anchor"}
    for name, span in zip(names, view.spans, strict=True):
        middle = (span.begin + span.end) / 2
        axes.annotate(
            name, (middle, 1), xycoords=("data", "axes fraction"), xytext=(0, 5), textcoords="offset points",
            fontsize=8, color=SOFT, fontfamily=fonts(), fontstyle="italic" if span.is_warm_start else "normal", **look,
        )  # fmt: skip
    return 20.0 if fits else 14 + 2.9 * max(map(len, names))


def _grouped(axes: Axes, by_run: Sequence[Mapping[Step, Mapping[str, Any] | None]], steps: Sequence[Step]) -> None:
    """Draw a bar for the gain of each step and run, with its interval."""
    width = 0.8 / len(by_run)
    for position, changes in enumerate(by_run):
        for place, step in enumerate(steps):
            if changes.get(step) is not None:
                x = place - 0.4 + (position + 0.5) * width
                _bar(axes, x, changes[step]["gain"], run_style(position)["color"], 0.86 * width)
    axes.axhline(0, color=GREY, linewidth=0.8)
    tidy(axes)


def _bar(axes: Axes, x: float, entry: Mapping[str, float | None], colour: Any, width: float) -> None:
    value = entry["mean"]
    axes.bar(x, value, width=width, color=colour)
    if entry["low"] is not None and entry["high"] is not None:
        ends = [[max(0.0, value - entry["low"])], [max(0.0, entry["high"] - value)]]
        axes.errorbar(x, value, yerr=ends, color="#333333", capsize=2, linewidth=1, marker="o", markersize=2.5)


def _runs_legend(figure: Figure, views: Sequence[PolicyView], handle: Callable[[int], Any]) -> None:
    """Name the runs above the panels. handle: what shows the run at a place in the list."""
    names, handles = labels([one.name for one in views], "run", 28), [handle(place) for place in range(len(views))]
    legend = figure.legend(handles, names, loc="outside upper center", ncols=min(len(views), 5), frameon=False,
                           fontsize=9)  # fmt: skip
    for text in legend.get_texts():
        text.set_fontfamily(fonts())


def _line_handle(place: int) -> Line2D:
    return Line2D([], [], linewidth=1.7, **{name: run_style(place)[name] for name in ("color", "linestyle")})


def _dot_handle(place: int) -> Line2D:
    return Line2D([], [], markersize=6, linewidth=1.2, **run_style(place))


def _bar_handle(place: int) -> Patch:
    return Patch(facecolor=run_style(place)["color"])

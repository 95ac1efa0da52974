"""What each method keeps of the old against how well it learns the new, and its score beside what that costs."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from everlearn.evaluation.stats import Interval
from everlearn.evaluation.tradeoff import Choice, Option
from everlearn.report.plot_scatter import Point, dot_area, frame_points, label_points
from everlearn.report.style import GREY, fonts, labels, new_figure, run_style, tidy
from everlearn.report.text import size

_COST_COLUMNS = ((1.05, "kept"), (1.27, "time"))  # right of the axes, as shares of their width


def draw_tradeoff(
    options: Sequence[Option],
    choice: Choice,
    scores: Mapping[str, Interval],
    *,
    joint: float | None = None,
    shares: bool = True,
    of_joint: bool = True,
) -> Figure:
    """Return two panels: retention over plasticity, and the final scores with what each method costs.

    Methods on the Pareto front are filled, the recommended one has a black rim; a dot is as large as what is kept.

    Args:
        scores: each method's average score at the end with its interval.
        joint: the same of joint training, drawn as a line.
        shares: retention is a share (stability); otherwise a difference (backward transfer).
        of_joint: plasticity is a share of joint training's scores.
    """
    figure = new_figure(12.4, max(4.8, 0.42 * len(options) + 1.6))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    names = labels([option.name for option in options], "method", 28)
    points = [Point(i, o.plasticity, o.retention, o.memory_bytes) for i, o in enumerate(options)]
    _dots(left, options, points, choice)
    unit = "score right after learning, share of joint training" if of_joint else "score right after learning"
    left.set_xlabel(f"plasticity: {unit}  →")
    unit = "score at the end ÷ right after learning" if shares else "score at the end − right after learning"
    left.set_ylabel(f"retention: {unit}  →")
    frame_points(left, points, 1.0 if shares else 0.0, of_joint)
    tidy(left, "both")
    _score_rows(right, options, names, choice, scores, joint)
    figure.legend(handles=_key(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    label_points(figure, left, points, dict(enumerate(names)))
    chosen = next(name for name, option in zip(names, options, strict=True) if option.name == choice.chosen)
    for text in left.texts:
        text.set_fontweight("bold" if text.get_text() == chosen else "normal")
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    return figure


def _dots(axes: Axes, options: Sequence[Option], points: Sequence[Point], choice: Choice) -> None:
    largest = max(point.kept for point in points)
    for option, point in sorted(zip(options, points, strict=True), key=lambda pair: -pair[1].kept):
        look = _look(option, point.position, choice)
        axes.scatter(point.x, point.y, s=dot_area(point.kept, largest), alpha=0.9, zorder=3, **look)


def _look(option: Option, position: int, choice: Choice) -> dict[str, object]:
    """Return a dot's fill and edge: filled on the front, hollow elsewhere, with a black rim if recommended."""
    colour = run_style(position)["color"]
    fill = colour if option.name in choice.front else "none"
    rim = "black" if option.name == choice.chosen else colour
    return {"facecolors": fill, "edgecolors": rim, "linewidths": 2.4 if option.name == choice.chosen else 1.6}


def _score_rows(
    axes: Axes,
    options: Sequence[Option],
    names: Sequence[str],
    choice: Choice,
    scores: Mapping[str, Interval],
    joint: float | None,
) -> None:
    """Draw a row for each method, best score on top: the score with its interval, what is kept, the time."""
    order = sorted(range(len(options)), key=lambda i: -options[i].score)
    outside = axes.get_yaxis_transform()
    for row, i in enumerate(order):
        option, score, colour = options[i], scores[options[i].name], run_style(i)["color"]
        axes.plot([score.low, score.high], [row, row], color=colour, linewidth=1.6, zorder=2)
        axes.scatter(score.value, row, s=64, color="white", zorder=2.5)
        axes.scatter(score.value, row, s=64, zorder=3, **_look(option, i, choice))
        cells = (size(option.memory_bytes) if option.memory_bytes else "–", f"{option.time:.1f}×")
        for (x, _), text in zip(_COST_COLUMNS, cells, strict=True):
            axes.text(x, row, text, transform=outside, va="center", fontsize=9)
    for x, head in _COST_COLUMNS:
        axes.text(x, -0.75, head, transform=outside, va="center", fontsize=9, color=GREY)
    if joint is not None:
        axes.axvline(joint, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        label = {"ha": "center", "va": "center", "fontsize": 8, "color": GREY}
        axes.text(joint, -0.75, "joint", **label, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    axes.set_yticks(range(len(order)), [names[i] for i in order], fontfamily=fonts(), fontsize=9)
    for row, i in enumerate(order):
        if options[i].name == choice.chosen:
            axes.get_yticklabels()[row].set_fontweight("bold")
    axes.set_ylim(len(order) - 0.4, -1.0)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("average score at the end, 95% interval  →")
    tidy(axes, "x")


def _key() -> list[Line2D]:
    def dot(label: str, fill: str, edge: str, width: float) -> Line2D:
        look = {"markerfacecolor": fill, "markeredgecolor": edge, "markeredgewidth": width}
        return Line2D([], [], linestyle="none", marker="o", markersize=9, label=label, **look)

    return [
        dot("on the Pareto front", GREY, GREY, 1.6),
        dot("another is at least as good in everything", "none", GREY, 1.6),
        dot("recommended", GREY, "black", 2.4),
        Line2D([], [], linestyle="none", label="A larger dot keeps more bytes. Time: training, none = 1."),
    ]

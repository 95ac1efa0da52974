"""Retention against plasticity: what each run kept of the old, over how well it learned the new."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from everlearn.report.style import GREY, fonts, labels, new_figure, run_style, tidy
from everlearn.report.text import size
from everlearn.report.views import RunView, joint_scores, kept_bytes, plasticity_of

MOST_CAPTIONS = 12  # of more dots each has a number, and the captions stand in a list


@dataclass(frozen=True)
class Point:
    """A dot: the number of its run, where it stands, and the bytes that the run keeps."""

    position: int
    x: float
    y: float
    kept: float


def draw_retention(views: Sequence[RunView]) -> Figure | None:
    """Return the scatter, a dot for each run, as large as what its strategies keep; None if no run has both numbers.

    x is plasticity (share of joint training) where a joint run is at hand, else learning accuracy; y is stability
    (share of the learned that is left), or backward transfer where a run has no stability. Joint training itself,
    which learns everything at once, has nothing to retain and is the line at 1.
    """
    joint = joint_scores(views)
    others = [i for i, view in enumerate(views) if not view.is_joint and _mean(view, "backward_transfer") is not None]
    plastic = {position: plasticity_of(views[position], joint) for position in others} if joint else {}
    use_joint = bool(plastic) and all(value is not None for value in plastic.values())
    y_name = "stability" if all(_mean(views[i], "stability") is not None for i in others) else "backward_transfer"
    points = []
    for position in others:
        x = plastic[position] if use_joint else _mean(views[position], "learning_accuracy")
        y = _mean(views[position], y_name)
        if x is not None and y is not None:
            points.append(Point(position, x, y, sum(kept_bytes(views[position]).values())))
    if not points:
        return None
    numbered = len(points) > MOST_CAPTIONS
    if numbered:
        figure = new_figure(10.4, 6.8)
        axes, beside = figure.subplots(1, 2, width_ratios=(7, 3))
    else:
        figure = new_figure(7.2, 5.6)
        axes = figure.subplots()
    _dots(axes, points)
    x_label = "score right after learning, share of joint training" if use_joint else "score right after learning"
    axes.set_xlabel(f"plasticity: {x_label}  →")
    y_label = "score at the end ÷ right after learning" if y_name == "stability" else "backward transfer"
    axes.set_ylabel(f"retention: {y_label}  →")
    frame_points(axes, points, 1.0 if y_name == "stability" else 0.0, use_joint)
    tidy(axes, "both")
    names = labels([view.name for view in views], "run", 32)
    captions = {point.position: _caption(names[point.position], point) for point in points}
    if numbered:
        captions = _list_captions(beside, points, captions)
    label_points(figure, axes, points, captions)
    return figure


def _mean(view: RunView, metric: str) -> float | None:
    return view.results["summary"][metric]["mean"]


def _caption(name: str, point: Point) -> str:
    return f"{name} ({size(point.kept)} kept)" if point.kept else name


def _list_captions(axes: Axes, points: Sequence[Point], captions: Mapping[int, str]) -> dict[int, str]:
    """Write the captions below each other, those that retain most on top, and return each one's number."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(points) - 0.5, -0.5))
    ordered = sorted(points, key=lambda point: (-point.y, -point.x))
    for row, point in enumerate(ordered):
        axes.text(0.06, row, str(row + 1), fontsize=9, va="center", ha="right")
        axes.scatter(0.12, row, s=40, color=run_style(point.position)["color"], alpha=0.85)
        axes.text(0.18, row, captions[point.position], fontsize=9, fontfamily=fonts(), va="center")
    return {point.position: str(row + 1) for row, point in enumerate(ordered)}


def dot_area(kept: float, largest: float) -> float:
    """Return a dot's area in points²: a minimum, and more in proportion to the bytes kept."""
    return 60 + (640 * kept / largest if largest else 0)


def _dots(axes: Axes, points: Sequence[Point]) -> None:
    largest = max(point.kept for point in points)
    for point in sorted(points, key=lambda point: -point.kept):
        style = run_style(point.position)
        look = {"color": style["color"], "edgecolors": "white", "linewidths": 1.0}
        axes.scatter(point.x, point.y, s=dot_area(point.kept, largest), alpha=0.85, zorder=3, **look)


def frame_points(axes: Axes, points: Sequence[Point], all_kept: float, use_joint: bool) -> None:
    """Set the limits around the points and mark where nothing is lost and where joint training stands."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    ys = [*ys, all_kept]
    xs = [*xs, 1.0] if use_joint else xs
    for values, put in ((xs, axes.set_xlim), (ys, axes.set_ylim)):
        margin = max(0.22 * (max(values) - min(values)), 0.03)
        put(min(values) - margin, max(values) + margin)
    axes.axhline(all_kept, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        "nothing lost",
        (0.01, all_kept),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color=GREY,
    )
    if use_joint:
        axes.axvline(1.0, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            "as joint training",
            (1.0, 0.01),
            xycoords=("data", "axes fraction"),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
            rotation=90,
        )


def label_points(figure: Figure, axes: Axes, points: Sequence[Point], captions: Mapping[int, str]) -> None:
    """Write each caption at the free place nearest to its dot, with a thin line to it where it had to move away."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    largest = max(point.kept for point in points)
    pixels = figure.dpi / 72
    taken = [text.get_window_extent(renderer) for text in axes.texts]
    radii = {point.position: math.sqrt(dot_area(point.kept, largest)) / 2 * pixels for point in points}
    for point in points:
        x, y = axes.transData.transform((point.x, point.y))
        radius = radii[point.position]
        taken.append(Bbox.from_extents(x - radius, y - radius, x + radius, y + radius))
    for point in sorted(points, key=lambda point: -point.y):
        caption = captions[point.position]
        text = axes.text(point.x, point.y, caption, fontsize=9, fontfamily=fonts(), va="bottom", zorder=4)
        box = text.get_window_extent(renderer)
        x, y = axes.transData.transform((point.x, point.y))
        reach = radii[point.position] + 3 * pixels
        box, leader = _free_place((x, y), reach, (box.width, box.height + 2), taken, inside)
        text.set_position(axes.transData.inverted().transform((box.x0, box.y0)))
        taken.append(box)
        if leader is not None:
            taken += [Bbox.from_bounds(*spot, 1, 1) for spot in leader.interpolated(12).vertices]
            ends = axes.transData.inverted().transform(leader.vertices)
            axes.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.7, zorder=2)


def _free_place(
    dot: tuple[float, float], gap: float, extent: tuple[float, float], taken: Sequence[Bbox], inside: Bbox
) -> tuple[Bbox, Path | None]:
    """Return the first box, going outwards around a dot (pixels), that is inside the axes and overlaps none taken.

    A box that had to move away comes with the line to it, which crosses no taken box either.
    """
    best, fewest = None, math.inf
    around = [box for box in taken if not box.contains(*dot)]
    for ring in range(16):
        for angle in (0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240):
            box = _box_at(dot, gap + ring * extent[1] * 0.8, angle, extent)
            near = (min(max(dot[0], box.x0), box.x1), min(max(dot[1], box.y0), box.y1))
            leader = Path([dot, near]) if ring > 1 else None
            outside = not (inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0 and box.y1 < inside.y1)
            clashes = 5 * sum(box.overlaps(other) for other in taken) + 20 * outside  # worse than a crossed line
            if leader is not None:
                clashes += sum(leader.intersects_bbox(other, filled=False) for other in around)
            if clashes < fewest:
                best, fewest = (box, leader), clashes
            if not clashes:
                return best
    return best


def _box_at(dot: tuple[float, float], reach: float, angle: float, extent: tuple[float, float]) -> Bbox:
    """Return the box of that size whose nearest edge is `reach` from the dot, at an angle in degrees."""
    across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    left = dot[0] + reach * across - extent[0] * (0.5 - 0.5 * across)
    low = dot[1] + reach * up - extent[1] * (0.5 - 0.5 * up)
    return Bbox.from_bounds(left, low, *extent)

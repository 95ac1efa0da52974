"""The report of runs by reinforcement: a supervised run's, with what each learning step gained and how it went."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from everlearn.report.html import write_pages
from everlearn.report.plot_policy import draw_divergence, draw_gains, draw_signals, draw_success
from everlearn.report.plots import Picture
from everlearn.report.policy_views import PolicyView, repeating, step_label
from everlearn.report.style import save
from everlearn.report.table import Grid
from everlearn.report.text import count, duration, estimate, number
from everlearn.report.views import RunView
from everlearn.state import make_folder

ANSWERS = {"greedy": "likeliest", "sampled": "at temperature 1"}

# file name, title, caption, what draws it (None where the runs give nothing to draw)
_PICTURES: tuple[tuple[str, str, str, Callable[[Sequence[PolicyView]], Figure | None]], ...] = (
    (
        "success",
        "Success on every task",
        "Held-out problems, over the iterations of all learning steps laid end to end. A step without iterations "
        "(a warm start, supervised learning) has a width of its own.",
        draw_success,
    ),
    (
        "gains",
        "What was gained, and what became of the others",
        "From the start of each learning step to its end, with 95% intervals; warm starts stand apart, in the table.",
        draw_gains,
    ),
    (
        "divergence",
        "The others, against how far the policy is from its start",
        "Mean success on the tasks that are not learned in the step, likeliest answers. KL(policy ‖ policy at the "
        "start of the run, after a warm start over all tasks). A line for each seed, from the start of the step (open) "
        "to its end (filled).",
        draw_divergence,
    ),
    (
        "signals",
        "How learning went",
        "Signal: problems whose answers differ in reward, which alone teach anything. The weight change counts from "
        "the start of each step. Dormant: neurons that are hardly active, at most 2.5% of their layer's mean.",
        draw_signals,
    ),
)


def write_policy_report(views: Sequence[RunView], out: Path) -> list[Grid]:
    """Write the report of one or several runs by reinforcement; return the tables that it adds to a supervised run's.

    Raises:
        StateError: if a log is missing or damaged; nothing is written then.
    """
    policies = [PolicyView.of(view) for view in views]
    make_folder(out)
    pictures = []
    for name, title, caption, draw in _PICTURES:
        figure = draw(policies)
        if figure is not None:
            pictures.append(Picture(out / f"{name}.png", title, caption))
            save(figure, pictures[-1].path)
    gains = [grid for grid in (gains_grid(policies), warm_grid(policies)) if grid.rows]
    course = course_grid(policies)
    write_pages(views, out, [*gains, *pictures, *([course] if course.rows else [])])
    return gains


def gains_grid(views: Sequence[PolicyView]) -> Grid:
    """Return what each task gained while it was learned, and what became of the others meanwhile."""
    several = any(len(view.entry["seeds"]) > 1 for view in views)
    over = "seeds and held-out problems" if several else "the held-out problems"
    note = (
        "Success on held-out problems from the task's own start to its end, likeliest answers and answers at "
        f"temperature 1. Others: mean over the other tasks meanwhile. 95% intervals over {over}."
    )
    return _changes("Gains", views, note, warm=False)


def warm_grid(views: Sequence[PolicyView]) -> Grid:
    """Return what warm starts did, which are no tasks."""
    note = "A little supervised learning from right answers. What it gave is in no task's gain."
    return _changes("Warm starts", views, note, warm=True)


def course_grid(views: Sequence[PolicyView]) -> Grid:
    """Return how each learning step went: iterations, answers, time, and where the policy stood at its end."""
    columns = (
        *_head(views), "iterations", "answers", "drawing", "judging", "learning", "signal", "entropy",
        "KL from the start", "weight change", "dormant", "ended",
    )  # fmt: skip
    rows = []
    for view in views:
        for label, entry in _steps(view, warm=False):
            end, seconds = entry["at_end"], entry["seconds"]
            rows.append(
                (
                    *_place(views, view, label),
                    *(
                        (count(entry["n_iterations"]), count(entry["n_answers"]))
                        if entry["n_iterations"]
                        else ("–",) * 2
                    ),
                    *(duration(seconds[name]) if entry["n_iterations"] else "–" for name in ("draw", "judge", "learn")),
                    *(number(end[name]) for name in ("signal", "entropy", "kl_to_start")),
                    *(number(end[name], digits=4) for name in ("weight_change_to_start", "dormant")),
                    _ended(entry),
                )
            )
    note = (
        "Means over the seeds; signal and entropy over the last 5 iterations. KL (nats a token) and weight change "
        "(‖Δθ‖ / ‖θ‖) count from the start of the run, after a warm start over all tasks."
    )
    return Grid("How each step went", columns, tuple(rows), note)


def _changes(title: str, views: Sequence[PolicyView], note: str, *, warm: bool) -> Grid:
    others = [] if warm else ["others, start → end"]
    columns = (*_head(views), "answers", "start", "end", "gain", *others)
    rows = []
    for view in views:
        for label, entry in _steps(view, warm=warm):
            for place, (kind, text) in enumerate(ANSWERS.items()):
                change = entry[kind]
                cells = [number(change["start"]["mean"]), number(change["end"]["mean"]), _gain(change["gain"])]
                if others:
                    cells.append(_meanwhile(change["others"]))
                rows.append((*_place(views, view, label if place == 0 else ""), text, *cells))
    return Grid(title, columns, tuple(rows), note)


def _steps(view: PolicyView, *, warm: bool) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the label and results of the steps that are warm starts, or those that are not."""
    entries = view.entry["phases"]
    repeats = repeating((entry["name"], entry["round"]) for entry in entries)
    return [
        (step_label(entry["name"], entry["round"], entry["name"] in repeats), entry)
        for entry in entries
        if entry["warm_start"] == warm
    ]


def _head(views: Sequence[PolicyView]) -> tuple[str, ...]:
    return ("run", "learned") if len(views) > 1 else ("learned",)


def _place(views: Sequence[PolicyView], view: PolicyView, label: str) -> tuple[str, ...]:
    return (view.name if label else "", label) if len(views) > 1 else (label,)


def _gain(entry: Mapping[str, float | None]) -> str:
    return "\n".join(estimate(entry, signed=True)).strip()


def _meanwhile(entry: Mapping[str, Mapping[str, float | None]] | None) -> str:
    if entry is None:
        return "–"
    start, end = (number(entry[name]["mean"]) for name in ("start", "end"))
    return f"{start} → {end}\n{' '.join(estimate(entry['gain'], signed=True)).strip()}"


def _ended(entry: Mapping[str, Any]) -> str:
    """Return why a step came to its end, over the seeds."""
    told = {"done": "done", "success": "enough right", "signal": "no signal", None: "not ended"}
    reasons = [told.get(why, str(why)) for why in entry["stopped"]]
    if len(set(reasons)) == 1:
        return reasons[0]
    return ", ".join(f"{reason} {reasons.count(reason)}×" for reason in dict.fromkeys(reasons))

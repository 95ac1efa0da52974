"""The report of runs by reinforcement: a supervised run's, with what each learning step gained and how it went."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from everlearn.report.html import write_pages
from everlearn.report.plot_policy import draw_divergence, draw_gains, draw_signals, draw_success
from everlearn.report.plots import Picture
from everlearn.report.policy_results import DECODED, LAST
from everlearn.report.policy_views import PolicyView, load_policies, repeating, step_label
from everlearn.report.style import save
from everlearn.report.table import Grid
from everlearn.report.text import count, duration, estimate, number, short
from everlearn.report.views import RunView
from everlearn.state import make_folder

ANSWERS_NOTE = "Greedy: the likeliest answer; sampled: at temperature 1."

LONGEST = 20  # letters of a name in a table of many columns

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
    policies = load_policies(views)
    make_folder(out)
    pictures = []
    for name, title, caption, draw in _PICTURES:
        figure = draw(policies)
        if figure is not None:
            pictures.append(Picture(out / f"{name}.png", title, caption))
            save(figure, pictures[-1].path)
    of = {one.name: f" of {one.name}" if len(policies) > 1 else "" for one in policies}
    gains = [gains_grid(one, f"Gains{of[one.name]}") for one in policies]
    gains += [warm_grid(one, f"Warm starts{of[one.name]}") for one in policies]
    gains = [grid for grid in gains if grid.rows]
    course = course_grid(policies)
    write_pages(views, out, [*gains, *pictures, *([course] if course.rows else [])])
    return gains


def gains_grid(view: PolicyView, title: str = "Gains") -> Grid:
    """Return what each task gained while it was learned, and what became of the others meanwhile."""
    over = "seeds and held-out problems" if len(view.phases) > 1 else "held-out problems"
    note = (
        f"Success on held-out problems from the task's own start to its end; 95% intervals over {over}. {ANSWERS_NOTE} "
        "Others: mean over the other tasks meanwhile."
    )
    columns = ("learned", "answers", "start", "end", "gain", "others meanwhile")
    rows = [(*row, _meanwhile(change["others"])) for row, change in _changes(view, warm=False)]
    return Grid(title, columns, tuple(rows), note)


def warm_grid(view: PolicyView, title: str = "Warm starts") -> Grid:
    """Return what warm starts gave, which are no tasks; no rows where there are none."""
    note = f"A little supervised learning from right answers: what it gave is in no task's gain. {ANSWERS_NOTE}"
    rows = [row for row, _ in _changes(view, warm=True)]
    return Grid(title, ("learned", "answers", "start", "end", "gain"), tuple(rows), note)


def course_grid(views: Sequence[PolicyView]) -> Grid:
    """Return how each learning step went: iterations, answers, time, and where the policy stood at its end."""
    several = len(views) > 1
    heads = ("learned", "iterations", "time", "signal", "entropy", "KL", "weight change", "dormant", "ended")
    rows = []
    for view in views:
        for label, entry in _steps(view, warm=False):
            end = entry["at_end"]
            cells = [number(end[name]) for name in ("signal", "entropy", "kl_to_start")]
            cells += [number(end[name], digits=4) for name in ("weight_change_to_start", "dormant")]
            row = (short(label, LONGEST), _iterations(entry), _time(entry), *cells, _ended(entry))
            rows.append((view.name, *row) if several else row)
    note = (
        f"Means over the seeds; signal and entropy over the last {LAST} iterations. KL (nats a token) and weight "
        "change (‖Δθ‖ / ‖θ‖) count from the start of the run, after a warm start over all tasks."
    )
    return Grid("How each step went", ("run", *heads) if several else heads, tuple(rows), note)


def _changes(view: PolicyView, *, warm: bool) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield a row of success at the start, at the end and the gain, and what it is of; two for each step."""
    for label, entry in _steps(view, warm=warm):
        for kind in DECODED:
            change = entry[kind]
            cells = (
                *(number(change[name] and change[name]["mean"]) for name in ("start", "end")),
                _gain(change["gain"]),
            )
            yield (label if kind == "greedy" else "", kind, *cells), change


def _steps(view: PolicyView, *, warm: bool) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the label and results of the steps that are warm starts, or those that are not."""
    entries = view.entry["phases"]
    repeats = repeating((entry["name"], entry["round"]) for entry in entries)
    return [
        (step_label(entry["name"], entry["round"], entry["name"] in repeats), entry)
        for entry in entries
        if entry["warm_start"] == warm
    ]


def _iterations(entry: Mapping[str, Any]) -> str:
    if not entry["n_iterations"]:
        return "–"
    return f"{count(entry['n_iterations'])}\n{count(entry['n_answers'])} answers"


def _time(entry: Mapping[str, Any]) -> str:
    """Return what the iterations took, and of it drawing and learning."""
    if not entry["n_iterations"]:
        return "–"
    seconds = entry["seconds"]
    parts = [f"{text} {duration(seconds[name])}" for name, text in (("draw", "drawing"), ("learn", "learning"))]
    return "\n".join((duration(sum(seconds.values())), *parts))


def _gain(entry: Mapping[str, float | None] | None) -> str:
    return "\n".join(estimate(entry, signed=True)).strip()


def _meanwhile(entry: Mapping[str, Mapping[str, float | None]] | None) -> str:
    if entry is None:
        return "–"
    start, end = (number(entry[name] and entry[name]["mean"]) for name in ("start", "end"))
    return f"{start} → {end}\n{_gain(entry['gain'])}"


def _ended(entry: Mapping[str, Any]) -> str:
    """Return why a step came to its end, over the seeds."""
    told = {"done": "done", "success": "enough right", "signal": "no signal", None: "not ended"}
    reasons = [told.get(why, str(why)) for why in entry["stopped"]]
    if len(set(reasons)) == 1:
        return reasons[0]
    return ", ".join(f"{reason} {reasons.count(reason)}×" for reason in dict.fromkeys(reasons))

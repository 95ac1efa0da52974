"""Tables of a report as plain rows, and the same rows for the terminal (rich) and in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from everlearn.report.abilities import Ability, abilities_of
from everlearn.report.compare import Comparison
from everlearn.report.text import (
    SIGNED,
    TITLES,
    count,
    duration,
    estimate,
    measures_note,
    number,
    p_text,
    short,
    size,
    title,
)
from everlearn.report.views import (
    RunView,
    axis_names,
    joint_scores,
    kept_bytes,
    load_views,
    mean_cost,
    mean_matrix,
    mean_over,
    plasticity_of,
)

MAX_TURNED = 3  # so many runs fit side by side as columns of a terminal


@dataclass(frozen=True)
class Grid:
    """A table as text: its title, its column heads, its rows. A cell may hold a line break. `note` stands below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def compare_table(runs: Mapping[str, Path]) -> Table:
    """Return the terminal table of several runs (names to folders), each metric with its interval.

    Raises:
        StateError: if a run's log is missing or damaged.
    """
    views = load_views(runs)
    grid = metrics_grid(views)
    return to_rich(_turned(grid) if len(views) <= MAX_TURNED else grid)


def metrics_grid(views: Sequence[RunView]) -> Grid:
    """Return runs × stream metrics, mean and 95% interval; plasticity where a joint run is among them."""
    joint = joint_scores(views)
    known = [
        name
        for name in TITLES
        if any(name in view.results["summary"] and view.results["summary"][name]["mean"] is not None for view in views)
    ]
    plastic = {view.name: plasticity_of(view, joint) for view in views} if joint else {}
    measures = {measure for view in views for measure in view.measures}
    columns = [title(name, measures) for name in known] + (["plasticity"] if plastic else [])
    rows = []
    for view in views:
        cells = ["\n".join(estimate(view.results["summary"][name], name in SIGNED)).strip() for name in known]
        if plastic:
            cells.append(number(plastic[view.name]))
        rows.append((_run_name(view), *cells))
    heading = "Runs side by side" if len(views) > 1 else "The run in numbers"
    note = f"{_interval_note(views)} {measures_note(measures)}".strip()
    return Grid(heading, ("run", *columns), tuple(rows), note)


def abilities_grid(views: Sequence[RunView]) -> Grid | None:
    """Return runs × abilities of the base model: before, and after the last step; None where none was measured."""
    found = {view.name: {one.name: one for one in abilities_of(view.run, view.seeds)} for view in views}
    known = {name: one for abilities in found.values() for name, one in abilities.items()}
    if not known:
        return None
    columns = [f"{name}: {one.short_title} (n={one.n})" for name, one in known.items()]
    rows = [
        (view.name, *(_kept(found[view.name][name]) if name in found[view.name] else "–" for name in known))
        for view in views
    ]
    note = "Before the first step → after the last, with its 95% interval. The less a number moves, the more is kept."
    if any(one.short_title == "KL" for one in known.values()):
        note += " KL: how far the model is from the base on the base's own texts, nats a token."
    return Grid("Kept of before", ("run", *columns), tuple(rows), note)


def _kept(ability: Ability) -> str:
    before, after = ability.shown[0], ability.last
    numbers = " → ".join(number(None if one is None else one.value) for one in (before, after))
    if after is None or np.isnan(after.low):
        return numbers
    return f"{numbers}\n[{number(after.low)}, {number(after.high)}]"


def matrix_grid(view: RunView) -> Grid:
    """Return a run's accuracy matrix, averaged over its seeds: rows are learning steps, columns are tasks."""
    if not view.started:
        return Grid(f"Scores of {view.name}", ("after learning",), (), "Nothing is scored yet.")
    matrix = view.started[0]
    names, steps = axis_names(view)
    if len(set(steps)) < len(steps):  # rounds
        steps = [f"{place}. {step}" for place, step in enumerate(steps, start=1)]
    rows = []
    baseline = mean_over([m.baseline for m in view.started])
    if not np.isnan(baseline).all():
        rows.append(("before training", *(number(value) for value in baseline)))
    for step, values in zip(steps, mean_matrix(view), strict=True):
        if not np.isnan(values).all():
            rows.append((step, *(number(value) for value in values)))
    n_seeds = len(view.started)
    note = f"Mean of {n_seeds} seeds." if n_seeds > 1 else f"Seed {matrix.seed}."
    if not view.same_order:
        note += " The seeds learn in different orders: columns are places in the order."
    note = f"{note} {measures_note(view.measures)}".strip()
    return Grid(f"Scores of {view.name}", ("after learning", *names), tuple(rows), note)


def cost_grid(views: Sequence[RunView]) -> Grid:
    """Return what each run cost, averaged over its seeds."""
    columns = ("run", "training", "evaluation", "steps", "tokens", "peak memory", "kept by strategies")
    rows = []
    for view in views:
        cost = mean_cost(view)
        kept = kept_bytes(view)
        parts = ", ".join(f"{name} {size(value)}" for name, value in kept.items()) or "nothing"
        cells = (duration(cost["train_s"]), duration(cost["eval_s"]), count(cost["n_steps"]), count(cost["n_tokens"]))
        rows.append((view.name, *cells, size(cost["peak_memory_bytes"]), parts))
    several = any(len(view.started) > 1 for view in views)
    return Grid("Cost in numbers", columns, tuple(rows), "Mean over the seeds." if several else "")


def comparison_grid(comparisons: Sequence[Comparison], overall: bool) -> Grid:
    """Return the paired comparisons, all tasks together (`overall`) or task by task."""
    chosen = [row for row in comparisons if (row.task is None) == overall]
    head = ("comparison", *(() if overall else ("task",)), "difference", "95% interval", "p", "over", "test")
    rows = []
    for row in chosen:
        _, interval = estimate({"mean": row.difference, "low": row.low, "high": row.high}, signed=True)
        pair = f"{row.second} − {row.first}"
        task = () if row.task is None else (row.task,)
        cells = (number(row.difference, signed=True), interval if np.isfinite(row.low) else "–", p_text(row.p_value))
        rows.append((pair, *task, *cells, row.over, row.test))
    note = (
        "At the end of the stream, on the same items; a score that is no mean over items (F1) is compared by its "
        "items' outcomes. P-values are not corrected for the number of comparisons."
    )
    heading = "Paired comparison" if overall else "Paired comparison, task by task"
    return Grid(heading, head, tuple(rows), note)


def to_rich(grid: Grid, limit: int = 28) -> Table:
    """Return a grid as a table for the terminal; names longer than `limit` lose their middle."""
    table = Table(title=escape(grid.title), caption=escape(grid.note) or None, show_lines=False)
    for position, column in enumerate(grid.columns):
        heading = escape(short(column, limit))
        table.add_column(heading, justify="left" if position == 0 else "right", overflow="fold")
    for row in grid.rows:
        first, *rest = row
        table.add_row(escape(short(first, limit)), *(escape(cell) for cell in rest))
    return table


def to_markdown(grid: Grid) -> str:
    """Return a grid as a Markdown table with its title above and its note below."""
    lines = [_markdown_row(grid.columns), "|" + " --- |" + " ---: |" * (len(grid.columns) - 1)]
    lines += [_markdown_row(row) for row in grid.rows]
    note = f"\n\n{markdown_text(grid.note)}" if grid.note else ""
    return f"## {markdown_text(grid.title)}\n\n" + "\n".join(lines) + note + "\n"


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it stands: no tags, no links, no table bars."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|#":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def _turned(grid: Grid) -> Grid:
    """Return the grid with rows and columns swapped, each cell on one line."""
    head, *rows = zip(grid.columns, *grid.rows, strict=True)
    lines = tuple((first, *(cell.replace("\n", " ") for cell in cells)) for first, *cells in rows)
    return Grid(grid.title, ("", *head[1:]), lines, grid.note)


def _run_name(view: RunView) -> str:
    return view.name if view.results["complete"] else f"{view.name} (not finished)"


def _interval_note(views: Sequence[RunView]) -> str:
    over = {view.results["summary"]["average_accuracy"]["over"] for view in views}
    units = " or ".join(sorted(unit for unit in over if unit))
    return f"95% intervals over {units}." if units else ""


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join("<br>".join(markdown_text(line) for line in cell.split("\n")) for cell in cells) + " |"

"""The report of online runs in a folder: `report.html`, `report.md`, the pictures, and the table as a picture."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

from matplotlib.figure import Figure

from everlearn.evaluation.answers import flips_of
from everlearn.report.html import folded, picture_section, table_section, texts_section
from everlearn.report.items import flips_grid
from everlearn.report.online_views import OnlineView, group_names, load_online_views
from everlearn.report.page import PAGE
from everlearn.report.plot_online import draw_learning, draw_six, draw_twelve, draw_types
from everlearn.report.plots import Picture
from everlearn.report.style import SOFT, fonts, labels, new_figure, save
from everlearn.report.table import Grid, markdown_text, to_markdown
from everlearn.report.text import duration, number, size
from everlearn.state import make_folder
from everlearn.types import Score

TABLE = "results_table.png"


def write_online_report(runs: Mapping[str, Path], out: Path) -> list[OnlineView]:
    """Write the report of one online run, or of several side by side, and return what it shows.

    Raises:
        ConfigError: if a run has no episode yet. StateError: if a log is missing or damaged; nothing is written then.
    """
    views = load_online_views(runs)
    out = Path(out)
    make_folder(out)
    grids = [accuracy_grid(views), group_grid(views, "by_type"), group_grid(views, "by_difficulty"), cost_grid(views)]
    pictures = _pictures(views, out)
    if len(views) > 1:
        save(table_figure(grids[0]), out / TABLE)
    title = f"everlearn: {views[0].name}" if len(views) == 1 else f"everlearn: {len(views)} online runs side by side"
    body = [table_section(grids[0]), *(picture_section(one) for one in pictures), *map(table_section, grids[1:])]
    body += [folded(grid.title, texts_section(grid)) for grid in map(problems_grid, views) if grid.rows]
    body += [folded(f"Settings of {view.name}", _settings(view)) for view in views]
    page = Template(PAGE).substitute(title=html.escape(title), lead=html.escape(_lead(views)), body="\n".join(body))
    (out / "report.html").write_text(page, encoding="utf-8")
    parts = [f"# {markdown_text(title)}\n", markdown_text(_lead(views)) + "\n", to_markdown(grids[0])]
    parts += [f"## {one.title}\n\n![{one.title}]({one.path.name})\n\n{one.caption}\n" for one in pictures]
    parts += [to_markdown(grid) for grid in grids[1:]]
    (out / "report.md").write_text("\n".join(parts), encoding="utf-8")
    return views


def _pictures(views: Sequence[OnlineView], out: Path) -> list[Picture]:
    by_type, stretches = [], [view.stretches() for view in views]
    if stretches[0] and all(one == stretches[0] for one in stretches):
        caption = "Held-out accuracy of each type over the episodes, with 95% intervals; shaded: while it was learned."
        by_type = [Picture(out / "types.png", "One type after another", caption)]
        save(draw_types(views), by_type[0].path)
    if len(views) == 1:
        caption = "Held-out problems are never learned from; bands and whiskers are 95% intervals."
        picture = Picture(out / "learning_curves.png", "How it learned", caption)
        save(draw_learning(views), picture.path)
        return [picture, *by_type]
    caption = "Bands and whiskers are 95% intervals: over seeds and held-out problems, with one seed over the problems."
    six = Picture(out / "comparison.png", "Side by side", caption)
    save(draw_six(views), six.path)
    lost = "Forgetting: of the held-out problems right at one scoring, the share wrong at the next."
    twelve = Picture(out / "comparison_all.png", "Side by side, in full", f"{caption} {lost}")
    save(draw_twelve(views), twelve.path)
    return [six, *by_type, twelve]


def accuracy_grid(views: Sequence[OnlineView]) -> Grid:
    """Return accuracy at first, in the end and at its peak, and the improvement, a row for each run."""
    columns = {"before": "initial_accuracy", "end": "final_accuracy", "peak": "peak_accuracy", "gain": "improvement"}
    note = "The peak is the best of the scorings; its interval allows for its having been picked."
    if any(view.results["backward_transfer"] for view in views):
        columns["backward transfer"] = "backward_transfer"
        note += " Backward transfer: change since the end of a type's own episodes, over all types but the last."
    rows = []
    for view in views:
        entries = [view.results[name] for name in columns.values()]
        signed = [title in ("gain", "backward transfer") for title in columns]
        cells = [_cell(entry, signed=sign) if entry else "–" for entry, sign in zip(entries, signed, strict=True)]
        n_episodes = max(seed["n_episodes"] for seed in view.results["seeds"])
        rows.append((view.name, *cells, str(n_episodes), str(len(view.results["seeds"]))))
    n = " or ".join(str(n) for n in sorted({view.results["n"] for view in views}))
    note = f"Share of {n} held-out problems answered rightly, with 95% intervals. {note}"
    if any(view.run.items != views[0].run.items for view in views):
        note += " The held-out problems aren't the same for all runs."
    return Grid("Held-out accuracy", ("run", *columns, "episodes", "seeds"), tuple(rows), note)


def group_grid(views: Sequence[OnlineView], key: str) -> Grid:
    """Return final accuracy, and the change, by type or by difficulty."""
    groups = group_names(views, key)
    rows = []
    for view in views:
        entries = [view.results[key].get(group) for group in groups]
        rows.append((view.name, *("–" if entry is None else _change(entry) for entry in entries)))
    title = f"Final accuracy {key.replace('_', ' ')}"
    return Grid(title, ("run", *groups), tuple(rows), "Below: the interval, and the change since the start.")


def problems_grid(view: OnlineView) -> Grid:
    """Return the held-out problems that were lost and gained from the first scoring to the last, of the first seed."""
    title = f"Held-out problems of {view.name} that were lost and gained"
    seed, lines = next(iter(view.run.evaluations.items()))
    first, last = (_score_of(lines[place]) for place in (0, -1))
    if len(view.run.asked) != first.n:
        return Grid(title, (), ())
    flips = flips_of([(question, right, None) for question, right in view.run.asked], first, last)
    grid = flips_grid(title, flips, ("before", "in the end"))
    return replace(grid, note=f"Seed {seed}. {grid.note}")


def _score_of(line: Mapping[str, Any]) -> Score:
    outcomes = tuple(map(float, line["outcomes"]))
    value = sum(outcomes) / len(outcomes)
    answers = tuple(line.get("answers", ()))
    return Score("held out", "exact_match", value, None, None, len(outcomes), outcomes, answers=answers)


def cost_grid(views: Sequence[OnlineView]) -> Grid:
    """Return what an episode and a scoring took, and what the strategies keep."""
    columns = ("run", "an episode", "a scoring", "kept by strategies", "right only after the step")
    rows = []
    for view in views:
        n_scorings = sum(len(seed["curve"]) for seed in view.results["seeds"])
        instant = view.over_seeds("instant_learning")
        cells = (
            duration(view.seconds_per_episode()),
            duration(sum(view.over_seeds("evaluation_s")) / n_scorings),
            size(view.kept_bytes()) if view.kept_bytes() else "–",
            number(sum(instant) / len(instant)) if instant else "–",
        )
        rows.append((view.name, *cells))
    return Grid("Cost", columns, tuple(rows))


def table_figure(grid: Grid) -> Figure:
    """Return a grid as a picture."""
    figure = new_figure(1.9 * len(grid.columns), 0.62 * len(grid.rows) + 1.0)
    axes = figure.subplots()
    axes.set_axis_off()
    names = labels([row[0] for row in grid.rows], "run", 22)
    rows = [[name, *row[1:]] for name, row in zip(names, grid.rows, strict=True)]
    table = axes.table(rows, colLabels=list(grid.columns), loc="center", cellLoc="center")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 2.4)
    for (line, column), cell in table.get_celld().items():
        cell.set_edgecolor("#d8dee4")
        cell.set_text_props(fontfamily=fonts(), fontweight="bold" if line == 0 or column == 0 else "normal")
        if line == 0:
            cell.set_facecolor("#f0f3f6")
    axes.set_title(grid.title, fontsize=12)
    figure.text(0.5, 0.01, grid.note, ha="center", fontsize=8, color=SOFT)
    return figure


def _cell(entry: Mapping[str, float | None], *, signed: bool) -> str:
    text = number(entry["value"], signed)
    if entry["low"] is None or entry["high"] is None:
        return text
    return f"{text}\n[{number(entry['low'], signed)}, {number(entry['high'], signed)}]"


def _change(entry: Mapping[str, Mapping[str, float | None]]) -> str:
    change = entry["final"]["value"] - entry["initial"]["value"]
    return f"{_cell(entry['final'], signed=False)}\n{number(change, signed=True)}"


def _lead(views: Sequence[OnlineView]) -> str:
    unfinished = [view.name for view in views if not view.results["complete"]]
    text = "Each problem is answered, learned from, and answered again; held-out problems show what was learned."
    if unfinished:
        text += f" Not finished, shown as far as it went: {', '.join(unfinished)}."
    return text


def _settings(view: OnlineView) -> str:
    text = json.dumps({"recipe": view.run.recipe, "env": view.run.env}, indent=2, ensure_ascii=False)
    return f"<pre>{html.escape(text)}</pre>"

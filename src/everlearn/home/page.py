"""A home on one page: how each task drifted, the items lost and gained, what the gate said, what happened."""

import html
import json
from dataclasses import asdict
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from rich.table import Table
from rich.text import Text

from everlearn.home.gate import LOG_LIKELIHOOD, report_from
from everlearn.home.home import Home
from everlearn.home.store import Version
from everlearn.home.views import change_notes, changes_table, gate_sentences, gate_table, log_table
from everlearn.report import plot_experts, plot_router
from everlearn.report.html import folded, picture_section, table_section, texts_section
from everlearn.report.items import flips_grid
from everlearn.report.page import PAGE
from everlearn.report.plots import Picture
from everlearn.report.style import save
from everlearn.report.table import Grid
from everlearn.state import make_folder, write_file


def write_page(home: Home, path: Path) -> None:
    """Write a home's report, one HTML file that fetches nothing.

    Raises:
        StateError: if a file that it needs is damaged, or the page can't be written.
    Cost: scores are those that are kept; what was not measured yet takes a pass over its items.
    """
    page = html_page(home)
    make_folder(path.parent)
    write_file(path, page.encode("utf-8", "replace"))


def html_page(home: Home) -> str:
    """Return the page."""
    current, versions = home.current, home.versions()
    title = html.escape(f"everlearn: {home.path.resolve().name}")
    learned = next(version.learned for version in versions if version.number == current)
    tasks = f"Tasks learned: {', '.join(learned) or 'none'}."
    lead = f"{home.settings.model.name}; version {current} is current, the newest is {versions[-1].number}. {tasks}"
    body = [*_drift(home), *_experts(home), *map(_gate, reversed(versions))]
    body += [texts_section(_grid(log_table(home.log(), current)))]
    settings = json.dumps(asdict(home.settings), indent=2, ensure_ascii=False)
    body.append(folded("Settings", f"<pre>{html.escape(settings)}</pre>"))
    return Template(PAGE).substitute(title=title, lead=html.escape(lead), body="\n".join(body))


def _drift(home: Home) -> list[str]:
    """Return how each task changed since it was learned, and its items that were lost and gained since."""
    drifts = home.since_learned()
    if not drifts:
        return []
    changes = [drift.change for drift in drifts]
    columns = {"learned in version": [str(drift.learned_in) for drift in drifts]}
    table = changes_table("Tasks, when learned and now", changes, columns)
    sections = [table_section(_grid(table, change_notes(changes)))]
    flips = [flip for drift in drifts if drift.change.metric != LOG_LIKELIHOOD for flip in drift.flips]
    grid = flips_grid("Items lost and gained since they were learned", flips, ("when learned", "now"))
    return [*sections, folded(grid.title, texts_section(grid))] if flips else sections


def _experts(home: Home) -> list[str]:
    """Return how the library of experts came to be, on the way to the current version; nothing where there is none."""
    told = [version.cost.get("strategy_facts", {}).get("experts", {}) for version in reversed(home.lineage())]
    lines = [facts for facts in told if "action" in facts]
    if not lines:
        return []
    name = home.path.resolve().name
    figures = [
        (plot_router.decisions_figure({name: lines}), plot_router.TITLE, plot_router.CAPTION),
        (plot_experts.experts_figure({name: (lines, home.library)}), plot_experts.TITLE, plot_experts.CAPTION),
    ]
    sections = []
    with TemporaryDirectory() as folder:
        for figure, title, caption in figures:
            picture = Picture(Path(folder) / "picture.png", title, caption)
            save(figure, picture.path)
            sections.append(picture_section(picture))
    return sections


def _gate(version: Version) -> str:
    """Return what the gate said of a version, folded; nothing of one that was compared with none."""
    report = None if version.gate is None else report_from(version.gate)
    if report is None or not (report.verdicts or report.abilities):
        return ""
    notes = [*gate_sentences(report), *version.notes]
    title = f"Version {version.number}: {version.task}, {version.status}"
    return folded(title, table_section(_grid(gate_table(report), notes)))


def _grid(table: Table, notes: list[str] | None = None) -> Grid:
    """Return a table of the terminal as one of the page."""
    rows = zip(*(map(_plain, column.cells) for column in table.columns), strict=True)
    columns = tuple(_plain(column.header) for column in table.columns)
    return Grid(_plain(table.title or "What happened"), columns, tuple(rows), " ".join(notes or ()))


def _plain(cell: str | Text) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)

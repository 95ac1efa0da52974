"""A report in a folder: `report.html` (one file, nothing fetched), `report.md` and the pictures beside it."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from everlearn.report.compare import Comparison, paired_comparisons
from everlearn.report.items import items_grid
from everlearn.report.page import PAGE
from everlearn.report.plots import Picture, write_plots
from everlearn.report.table import (
    Grid,
    abilities_grid,
    comparison_grid,
    cost_grid,
    markdown_text,
    matrix_grid,
    metrics_grid,
    to_markdown,
)
from everlearn.report.views import RunView, load_views
from everlearn.state import make_folder


def write_report(runs: Mapping[str, Path], out: Path) -> None:
    """Write the report of one or several runs: `report.html`, `report.md` and PNG pictures.

    Args:
        runs: names, as the report shows them, to run folders.
        out: the folder to write into; it is made if it is missing.
    Raises:
        ConfigError: if no run is named.
        StateError: if a run's log is missing or damaged; nothing is written then.
    """
    write_pages(load_views(runs), Path(out))


def write_pages(views: Sequence[RunView], out: Path, first: Sequence[Grid | Picture] = ()) -> None:
    """Write the report of runs that were read already; see `write_report`.

    Args:
        first: what a kind of run shows of its own, before the pictures; its pictures are in `out` by now.
    """
    comparisons = paired_comparisons(views)
    make_folder(out)
    shown = [*first, *write_plots(views, out)]
    (out / "report.html").write_text(html_page(views, comparisons, shown), encoding="utf-8")
    (out / "report.md").write_text(markdown_page(views, comparisons, shown), encoding="utf-8")


def html_page(views: Sequence[RunView], comparisons: Sequence[Comparison], shown: Sequence[Grid | Picture]) -> str:
    """Return the whole page as one string, pictures inside."""
    overall, by_task = comparison_grid(comparisons, overall=True), comparison_grid(comparisons, overall=False)
    matrices = "".join(table_section(matrix_grid(view)) for view in views)
    kept = abilities_grid(views)
    body = [table_section(metrics_grid(views)), *([] if kept is None else [table_section(kept)])]
    body += [picture_section(one) if isinstance(one, Picture) else table_section(one) for one in shown]
    if overall.rows:
        body.append(table_section(overall))
    if by_task.rows:
        body.append(folded(by_task.title, table_section(by_task)))
    body += [folded(grid.title, texts_section(grid)) for grid in map(items_grid, views) if grid.rows]
    body.append(table_section(cost_grid(views)))
    body.append(folded("All scores as numbers", matrices))
    body += [folded(f"Settings of {view.name}", _settings(view)) for view in views]
    title = html.escape(_title(views))
    lead = html.escape(_lead(views))
    return Template(PAGE).substitute(title=title, lead=lead, body="\n".join(body))


def markdown_page(views: Sequence[RunView], comparisons: Sequence[Comparison], shown: Sequence[Grid | Picture]) -> str:
    """Return the report in Markdown; pictures are files beside it."""
    parts = [
        f"# {markdown_text(_title(views))}\n",
        markdown_text(_lead(views)) + "\n",
        to_markdown(metrics_grid(views)),
    ]
    kept = abilities_grid(views)
    parts += [] if kept is None else [to_markdown(kept)]
    parts += [_markdown_picture(one) if isinstance(one, Picture) else to_markdown(one) for one in shown]
    for overall in (True, False):
        grid = comparison_grid(comparisons, overall)
        if grid.rows:
            parts.append(to_markdown(grid))
    parts.append(to_markdown(cost_grid(views)))
    parts += [to_markdown(matrix_grid(view)) for view in views]
    return "\n".join(parts)


def _markdown_picture(picture: Picture) -> str:
    return f"## {picture.title}\n\n![{picture.title}]({picture.path.name})\n\n{picture.caption}\n"


def _title(views: Sequence[RunView]) -> str:
    return f"everlearn: {views[0].name}" if len(views) == 1 else f"everlearn: {len(views)} runs side by side"


def _lead(views: Sequence[RunView]) -> str:
    n_tasks = max(len(matrix.tasks) for view in views for matrix in view.matrices)
    n_seeds = max(len(view.matrices) for view in views)
    tasks, seeds = (
        ("1 task" if n_tasks == 1 else f"{n_tasks} tasks"),
        ("1 seed" if n_seeds == 1 else f"{n_seeds} seeds"),
    )
    unfinished = [view.name for view in views if not view.results["complete"]]
    text = f"{tasks}, {seeds}. Scores are shares unless a picture says otherwise; higher is better."
    if unfinished:
        text += f" Not finished, shown as far as it went: {', '.join(unfinished)}."
    return text


def texts_section(grid: Grid) -> str:
    """Return a grid whose cells are texts, which wrap, as a section of the page."""
    return table_section(grid, kind="texts")


def table_section(grid: Grid, kind: str = "numbers") -> str:
    """Return a grid as a section of the page."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in grid.columns)
    rows = "".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>' + "".join(f"<td>{_cell(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in grid.rows
    )
    note = f'<p class="note">{html.escape(grid.note)}</p>' if grid.note else ""
    table = f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<section><h2>{html.escape(grid.title)}</h2>{table}{note}</section>"


def _cell(text: str) -> str:
    first, *rest = text.split("\n")
    return html.escape(first) + "".join(f"<small>{html.escape(line)}</small>" for line in rest)


def picture_section(picture: Picture) -> str:
    """Return a picture as a section of the page, its file inside."""
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    image = f'<img alt="{title}" src="data:image/png;base64,{data}">'
    return (
        f'<section><h2>{title}</h2><figure><div class="wide picture">{image}</div>'
        f"<figcaption>{caption}</figcaption></figure></section>"
    )


def folded(title: str, content: str) -> str:
    """Return HTML that is hidden until its title is clicked."""
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"


def _settings(view: RunView) -> str:
    text = json.dumps({"recipe": view.run.recipe, "env": view.run.env}, indent=2, ensure_ascii=False)
    return f"<pre>{html.escape(text)}</pre>"

"""The report of online runs over labelled rows in a folder: `report.html`, `report.md`, and the pictures."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from everlearn.errors import ConfigError, describe
from everlearn.report.html import folded, picture_section, table_section
from everlearn.report.page import PAGE
from everlearn.report.plot_prequential import draw_stream, draw_streams
from everlearn.report.plots import Picture
from everlearn.report.prequential_results import prequential_results, read_prequential_run
from everlearn.report.style import save
from everlearn.report.table import Grid, markdown_text, to_markdown
from everlearn.report.text import number, size
from everlearn.state import make_folder

TITLES = {
    "accuracy": "accuracy", "entity_f1": "entity F1", "kappa": "Cohen's kappa", "macro_f1": "macro F1",
    "majority": "most frequent class", "mean_error": "mean error", "root_mean_squared_error": "root mean squared error",
    "running_mean": "mean of rows before",
}  # fmt: skip


@dataclass(frozen=True)
class StreamView:
    """One run: its name and its results."""

    name: str
    results: Mapping[str, Any]


def write_prequential_report(runs: Mapping[str, Path], out: Path) -> list[StreamView]:
    """Write the report of one online run over labelled rows, or of several side by side, and return what it shows.

    Raises:
        ConfigError: if a run has scored no row yet. StateError: if a log is missing or damaged.
    """
    views = [StreamView(name, prequential_results(read_prequential_run(folder))) for name, folder in runs.items()]
    for view, folder in zip(views, runs.values(), strict=True):
        if not view.results["seeds"]:
            way_out = f"Go on with it: everlearn resume {folder}"
            raise ConfigError(describe("report", "the run has scored no row yet", str(folder), way_out))
    make_folder(out)
    grids = [scores_grid(views), stream_grid(views)]
    picture = _picture(views, out)
    title = f"everlearn: {views[0].name}" if len(views) == 1 else f"everlearn: {len(views)} streams side by side"
    body = [table_section(grids[0]), picture_section(picture), table_section(grids[1])]
    body += [folded(f"Settings of {view.name}", _settings(view)) for view in views]
    lead = "Each row is answered before it is learned; so every row is a test."
    page = Template(PAGE).substitute(title=html.escape(title), lead=html.escape(lead), body="\n".join(body))
    (out / "report.html").write_text(page, encoding="utf-8")
    parts = [f"# {markdown_text(title)}\n", f"{lead}\n", to_markdown(grids[0])]
    parts += [f"## {picture.title}\n\n![{picture.title}]({picture.path.name})\n\n{picture.caption}\n"]
    (out / "report.md").write_text("\n".join([*parts, to_markdown(grids[1])]), encoding="utf-8")
    return views


def scores_grid(views: list[StreamView]) -> Grid:
    """Return the scores over the whole stream and, in brackets, of late rows, a row for each run."""
    main = views[0].results["score"]["name"]
    names = [main, *(name for name in TITLES if name != main and name in views[0].results["whole"])]
    rows = []
    for view in views:
        score, whole, faded = (view.results[name] for name in ("score", "whole", "faded"))
        known = score["low"] is not None and score["high"] is not None
        interval = f"\n[{number(score['low'])}, {number(score['high'])}]" if known else ""
        cells = [f"{number(score['value'])}{interval}"]
        cells += [number(whole[name]) for name in names[1:]]
        rows.append((view.name, *cells, number(faded[main]), str(view.results["n"]), str(len(view.results["seeds"]))))
    columns = ("run", *(TITLES[name] for name in names), f"{TITLES[main]} of late", "rows", "seeds")
    note = (
        "Of all rows, each answered before it was learned, with 95% intervals that take rows as independent; of late: "
        "faded, older rows counting less."
    )
    return Grid("Scores of the stream", columns, tuple(rows), note)


def stream_grid(views: list[StreamView]) -> Grid:
    """Return what came, what was noticed and what it took, of each run's first seed."""
    columns = ("run", "classes", "drifts noticed", "answers missing", "rows a second", "kept by strategies")
    rows = []
    for view in views:
        seed = view.results["seeds"][0]
        kept = sum(seed["strategy_bytes"].values())
        cells = (
            str(len(seed["labels"])) if seed["labels"] else "–",
            str(len(seed["drifts"])),
            str(seed["n_waiting"] + seed["n_given_up"]),
            number(seed["n"] / seed["seconds"]) if seed["seconds"] else "–",
            size(kept) if kept else "–",
        )
        rows.append((view.name, *cells))
    return Grid("The stream", columns, tuple(rows), "Of the first seed; seconds of answering and learning alone.")


def _picture(views: list[StreamView], out: Path) -> Picture:
    if len(views) == 1:
        caption = (
            "Above: how rows were answered before they were learned, older ones fading; grey lines: drift was noticed. "
            "Below: their loss, and the learning rate."
        )
        picture = Picture(out / "stream.png", "How it learned", caption)
        save(draw_stream(views[0].results["seeds"][0]), picture.path)
        return picture
    picture = Picture(out / "comparison.png", "Side by side", "Of late rows, older ones fading; each run's first seed.")
    save(draw_streams([view.results["seeds"][0] for view in views], [view.name for view in views]), picture.path)
    return picture


def _settings(view: StreamView) -> str:
    shown = {"recipe": view.results["recipe"], "env": view.results["env"]}
    return f"<pre>{html.escape(json.dumps(shown, indent=2, ensure_ascii=False))}</pre>"

"""The analysis of an experiment: tables, comparisons, ranks and pictures, as Markdown, CSV, LaTeX, PNG and HTML."""

import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from string import Template

import numpy as np
from rich.console import RenderableType
from rich.markup import escape

from everlearn.bench.pictures import draw_curves, draw_pareto, draw_ranks
from everlearn.bench.ranks import Ranks, holm, rank
from everlearn.bench.scores import Entry, read_entry
from everlearn.errors import ConfigError, describe
from everlearn.evaluation.stats import Interval, paired_seeds
from everlearn.files import remove, staged
from everlearn.report.compare import MAX_ALL_PAIRS
from everlearn.report.html import picture_section, table_section, write_pages
from everlearn.report.page import PAGE
from everlearn.report.plots import Picture
from everlearn.report.style import save
from everlearn.report.table import Grid as Table
from everlearn.report.table import to_markdown, to_rich
from everlearn.report.text import duration, number, p_text, size
from everlearn.runs import is_finished
from everlearn.state import read_json

PLACE = "analysis"


@dataclass(frozen=True)
class Comparison:
    """`second` minus `first` at the end, on the seeds and items that both have. corrected: by Holm, over all."""

    group: str
    first: str
    second: str
    difference: Interval
    p_value: float
    corrected: float
    over: str


def analyse(out: Path) -> list[RenderableType]:
    """Write the analysis of the cells that are done into `out`/analysis, in place of the one before.

    Returns:
        What a terminal shows of it.

    Raises:
        ConfigError: if the folder is no experiment, or no cell is done.
    """
    entries, n_left, failures = read_entries(out)
    if not entries:
        way_out = f"Run it first: everlearn bench GRID.yaml --out {out}"
        raise ConfigError(describe("--analyse", "no cell is done in the folder", str(out), way_out))
    comparisons, ranks = compare(entries), rank_all(entries)
    tables = [scores_table(entries), costs_table(entries), comparisons_table(comparisons)]
    if ranks is not None:
        tables.append(ranks_table(*ranks))
    if failures:
        tables.append(Table("Failed", ("cell", "error"), tuple(failures.items())))
    target = out / PLACE
    remove(target)
    with staged(target) as folder:
        pictures = _draw(entries, ranks, folder)
        lead = f"{sum(len(entry.seeds) for entry in entries)} cells are done, {n_left} are not."
        (folder / "analysis.md").write_text(_markdown(lead, tables, pictures), encoding="utf-8")
        (folder / "analysis.html").write_text(_page(lead, tables, pictures), encoding="utf-8")
        (folder / "table.tex").write_text(to_latex(tables[0]), encoding="utf-8")
        for name, rows in (("cells", _cell_rows(entries)), ("scores", _score_rows(entries)),
                           ("comparisons", _comparison_rows(comparisons))):  # fmt: skip
            (folder / f"{name}.csv").write_text(_csv(rows), encoding="utf-8")
        _write_reports(entries, folder / "reports")
    told = [(to_rich(replace(table, note="")), f"{escape(table.note)}\n") for table in tables if table.rows]
    return [*(line for both in told for line in both), f"\nAnalysis: {target / 'analysis.html'}"]


def read_entries(out: Path) -> tuple[list[Entry], int, dict[str, str]]:
    """Return what the finished cells of an experiment showed, how many cells aren't done, and the failed ones' errors.

    Raises:
        ConfigError: if the folder is no experiment.
    """
    if not (out / "bench.json").exists():
        raise ConfigError(describe("--analyse", "holds no experiment", str(out), "Name the --out of everlearn bench"))
    begun = read_json(out / "bench.json")
    failures = read_json(out / "failed.json") if (out / "failed.json").exists() else {}
    places: dict[tuple[str, str], dict[int, Path]] = {}
    n_left = 0
    for name, about in begun["labels"].items():
        folder = out / "cells" / name
        if is_finished(folder):
            places.setdefault((about["group"], about["variant"]), {})[about["seed"]] = folder
        else:
            n_left += 1
    return [read_entry(*labels, folders) for labels, folders in places.items()], n_left, failures


def compare(entries: Sequence[Entry]) -> list[Comparison]:
    """Compare the variants of each group two by two, of more than four each with the first; p-values by Holm over all.

    On the items at the end that both have, see `everlearn.evaluation.stats.paired_seeds`.
    """
    found = []
    for group, own in by_group(entries).items():
        pairs = combinations(own, 2) if len(own) <= MAX_ALL_PAIRS else ((own[0], other) for other in own[1:])
        for first, second in pairs:
            rows = _shared_items(first, second)
            if rows is None:
                continue
            paired = paired_seeds(*rows)
            over = f"{len(rows[0])} seeds × {paired.n} items" if len(rows[0]) > 1 else f"{paired.n} items"
            difference = Interval(paired.difference, paired.low, paired.high)
            found.append((group, first.variant, second.variant, difference, paired.p_value, over))
    corrected = holm([row[4] for row in found])
    return [Comparison(*row[:5], p, row[5]) for row, p in zip(found, corrected, strict=True)]


def rank_all(entries: Sequence[Entry]) -> tuple[Ranks, str] | None:
    """Return the variants' mean ranks, and over what; None where there are fewer than two variants or two blocks.

    Blocks are the groups, where three or more have the same variants; else each group with each seed.
    """
    groups = by_group(entries)
    everywhere = [
        name
        for name in dict.fromkeys(entry.variant for entry in entries)
        if all(name in [entry.variant for entry in own] for own in groups.values())
    ]
    found = [{entry.variant: entry for entry in own} for own in groups.values()]
    by_seed = len(groups) < 3
    blocks = []
    for own in found:
        shared = [seed for seed in own[everywhere[0]].seeds if all(seed in own[v].seeds for v in everywhere)] \
            if everywhere else []  # fmt: skip
        per_seed = [[own[v].by_seed[list(own[v].seeds).index(seed)] for v in everywhere] for seed in shared]
        blocks += per_seed if by_seed else ([np.mean(per_seed, axis=0).tolist()] if per_seed else [])
    blocks = [block for block in blocks if None not in block and not any(map(math.isnan, block))]
    if len(everywhere) < 2 or len(blocks) < 2:
        return None
    what = "seeds" if len(groups) == 1 else "groups and seeds" if by_seed else "groups"
    return rank(everywhere, blocks), what


def by_group(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each group, in order."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    return groups


def scores_table(entries: Sequence[Entry]) -> Table:
    """Return variants × groups: the mean score with its interval."""
    groups = by_group(entries)
    variants = dict.fromkeys(entry.variant for entry in entries)
    known = {(entry.group, entry.variant): entry for entry in entries}
    rows = []
    for variant in variants:
        cells = []
        for group in groups:
            entry = known.get((group, variant))
            cells.append("–" if entry is None else shown(entry.score))
        rows.append((variant, *cells))
    n_seeds = sorted({len(entry.seeds) for entry in entries})
    seeds = " or ".join(map(str, n_seeds)) + (" seed" if n_seeds == [1] else " seeds")
    what = "the items" if n_seeds == [1] else "seeds and items"
    note = f"Mean score at the end over {seeds}; 95% intervals over {what}."
    return Table("Scores", ("", *(group or "score" for group in groups)), tuple(rows), note)


def costs_table(entries: Sequence[Entry]) -> Table:
    """Return what each variant lost, took and keeps."""
    rows = [
        (
            f"{entry.group}: {entry.variant}" if entry.group else entry.variant,
            shown(entry.change, signed=True),
            "–" if math.isnan(entry.train_s) else duration(entry.train_s),
            "–" if math.isnan(entry.memory_bytes) else size(entry.memory_bytes),
            "–" if math.isnan(entry.kept_bytes) else size(entry.kept_bytes),
        )
        for entry in entries
    ]
    heads = ("", "backward transfer", "training", "peak memory", "kept")
    return Table("Change and cost", heads, tuple(rows), "Of a seed on average. Kept: by the methods, beside the model.")


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the paired comparisons."""
    rows = tuple(
        (
            f"{one.group}: {one.second} − {one.first}" if one.group else f"{one.second} − {one.first}",
            shown(one.difference, signed=True), p_text(one.p_value), p_text(one.corrected), one.over,
        )
        for one in comparisons
    )  # fmt: skip
    note = f"At the end, on the same seeds and items. Holm: corrected for all {len(rows)} comparisons."
    return Table("Paired comparisons", ("", "difference", "p", "p (Holm)", "over"), rows, note)


def ranks_table(ranks: Ranks, what: str) -> Table:
    """Return the mean ranks, the best first."""
    order = sorted(range(len(ranks.names)), key=lambda i: ranks.mean[i])
    rows = tuple((ranks.names[i], number(ranks.mean[i], digits=2)) for i in order)
    caution = "" if what == "groups" else " Seeds of one stream are no independent blocks: take it as a hint."
    note = (
        f"Over {ranks.n_blocks} blocks ({what}). Friedman's test: χ² {ranks.statistic:.2f}, p {p_text(ranks.p_value)}. "
        f"Ranks that differ by less than {ranks.critical:.2f} (Nemenyi, 95%) can't be told apart.{caution}"
    )
    return Table("Mean ranks", ("", "rank"), rows, note)


def shown(interval: Interval, signed: bool = False) -> str:
    """Return a number with its interval on a second line, where it has one."""
    value = number(interval.value, signed)
    if math.isnan(interval.low) or math.isnan(interval.high):
        return value
    return f"{value}\n[{number(interval.low, signed)}, {number(interval.high, signed)}]"


def to_latex(table: Table) -> str:
    """Return a table for a paper (booktabs)."""
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\toprule"]
    lines.append(" & ".join(map(_latex, table.columns)) + r" \\")
    lines.append(r"\midrule")
    for row in table.rows:
        lines.append(" & ".join(_latex(cell.replace("\n", " ")) for cell in row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", f"% {table.note}"]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    marks = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--"}
    return "".join(marks.get(letter, rf"\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def _shared_items(first: Entry, second: Entry) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """Return both entries' outcomes [n_items] of the seeds and tasks that they share; None where there are none."""
    ends = [dict(zip(entry.seeds, entry.outcomes, strict=False)) for entry in (first, second)]
    seeds = [seed for seed in ends[0] if seed in ends[1]]
    if not seeds:
        return None
    tasks = [
        task
        for task in ends[0][seeds[0]]
        if all(task in end[seed] for end in ends for seed in seeds)
        and len({len(end[seed][task]) for end in ends for seed in seeds}) == 1
    ]
    if not tasks:
        return None
    before, after = ([np.concatenate([end[seed][task] for task in tasks]) for seed in seeds] for end in ends)
    return before, after


def _draw(entries: Sequence[Entry], ranks: tuple[Ranks, str] | None, folder: Path) -> list[Picture]:
    """Draw what there is to draw into the folder."""
    pictures = []
    if ranks is not None and len(ranks[0].names) > 2:
        caption = f"Left is better. A bar joins methods that can't be told apart (Nemenyi, 95%); blocks: {ranks[1]}."
        pictures.append((Picture(folder / "ranks.png", "Mean ranks", caption), draw_ranks(ranks[0])))
    costs = (
        ("train_s", "time", "training, seconds of a seed", "time of training"),
        ("memory_bytes", "memory", "peak memory, MiB", "memory"),
        ("kept_bytes", "kept", "kept beside the model, KiB", "what is kept of the past"),
    )
    for name, file, label, words in costs:
        figure = draw_pareto(by_group(entries), name, label)
        if figure is not None:
            caption = f"Up and left is better. The line joins those that no other beats in both score and {words}."
            pictures.append((Picture(folder / f"pareto_{file}.png", f"Score against {words}", caption), figure))
    figure = draw_curves(by_group(entries))
    if figure is not None:
        caption = "Mean score of what was learned so far, over the seeds; bands span the seeds."
        pictures.append((Picture(folder / "curves.png", "While it learned", caption), figure))
    for picture, figure in pictures:
        save(figure, picture.path)
    return [picture for picture, _ in pictures]


def _write_reports(entries: Sequence[Entry], folder: Path) -> None:
    """Write the report of the runs of each group, where they are runs over tasks."""
    for number_, own in enumerate(by_group(entries).values(), start=1):
        views = [entry.view for entry in own if entry.view is not None]
        if views:
            write_pages(views, folder / f"group-{number_}")


def _markdown(lead: str, tables: Sequence[Table], pictures: Sequence[Picture]) -> str:
    parts = ["# everlearn bench\n", f"{lead}\n", *(to_markdown(table) for table in tables if table.rows)]
    parts += [f"## {one.title}\n\n![{one.title}]({one.path.name})\n\n{one.caption}\n" for one in pictures]
    return "\n".join(parts)


def _page(lead: str, tables: Sequence[Table], pictures: Sequence[Picture]) -> str:
    first, *rest = [table_section(table) for table in tables if table.rows]
    body = "\n".join([first, *map(picture_section, pictures), *rest])
    return Template(PAGE).substitute(title="everlearn bench", lead=html.escape(lead), body=body)


def _cell_rows(entries: Sequence[Entry]) -> list[tuple]:
    rows: list[tuple] = [("group", "variant", "seed", "score")]
    for entry in entries:
        rows += [(entry.group, entry.variant, s, v) for s, v in zip(entry.seeds, entry.by_seed, strict=True)]
    return rows


def _score_rows(entries: Sequence[Entry]) -> list[tuple]:
    heads = ("group", "variant", "n_seeds", "score", "low", "high", "backward_transfer", "train_s",
             "peak_memory_bytes", "kept_bytes")  # fmt: skip
    return [heads] + [
        (
            one.group, one.variant, len(one.seeds), one.score.value, one.score.low, one.score.high, one.change.value,
            one.train_s, one.memory_bytes, one.kept_bytes,
        )
        for one in entries
    ]  # fmt: skip


def _comparison_rows(comparisons: Sequence[Comparison]) -> list[tuple]:
    heads = ("group", "first", "second", "difference", "low", "high", "p", "p_holm", "over")
    return [heads] + [
        (
            one.group, one.first, one.second, one.difference.value, one.difference.low, one.difference.high,
            one.p_value, one.corrected, one.over,
        )
        for one in comparisons
    ]  # fmt: skip


def _csv(rows: Sequence[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    return text.getvalue()

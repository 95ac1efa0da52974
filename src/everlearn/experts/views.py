"""What a library has to say, as tables and sentences for the terminal."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from everlearn.experts.library import Library
from everlearn.experts.record import LIVE, Expert
from everlearn.report.text import number, short, size

if TYPE_CHECKING:
    from everlearn.experts.router import Decision
    from everlearn.experts.signals.layers import Shapes, Surveyed


def experts_table(library: Library, *, everything: bool = False) -> Table:
    """Return the experts in use, a row each; with `everything`, also those that are retired or pruned."""
    title = f"{len(library)} experts of {library.base.name}"
    table = Table(title=escape(title), title_justify="left")
    for name in ("", "expert", "came to be", "tasks, rows"):
        table.add_column(name, overflow="fold")
    for name in ("rank", "uses", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    damaged = library.damaged()
    for expert in library.records.values() if everything else library.experts:
        state = "damaged" if expert.number in damaged else "" if expert.status == LIVE else expert.status
        tasks = ", ".join(expert.tasks[:4]) + (f" and {len(expert.tasks) - 4} more" if len(expert.tasks) > 4 else "")
        named = f"[bold]{escape(expert.tag)}[/bold]\n" if expert.tag else ""
        table.add_row(
            str(expert.number), named + escape(short(expert.description, 60)),
            came_to_be(expert) + (f"\n[bold]{state}[/bold]" if state else ""),
            f"{escape(tasks)}\n{sum(expert.rows.values())} rows" if tasks else "",
            str(expert.rank), str(expert.uses), size(expert.n_bytes),
        )  # fmt: skip
    return table


def came_to_be(expert: Expert) -> str:
    """Return in words how an expert was made: `forked from 3, adapted twice`."""
    parents = f" from {', '.join(map(str, expert.parents))}" if expert.parents else ""
    n = len(expert.earlier)
    adapted = "" if not n else ", adapted" if n == 1 else f", adapted {n} times"
    return f"{expert.origin}{parents}{adapted}"


def facts_of(library: Library, expert: Expert) -> list[tuple[str, str]]:
    """Return what there is to say of an expert, by name."""
    descended = [str(other.number) for other in library.records.values() if expert.number in other.parents]
    facts = [
        ("tag", expert.tag),
        ("description", expert.description),
        ("came to be", f"{came_to_be(expert)}, {expert.time}"),
        ("state", f"{expert.status}: {expert.reason}" if expert.reason else expert.status),
        ("rank, layers", f"{expert.rank}, {', '.join(expert.targets)}"),
        ("uses", f"{expert.uses}, outcomes known: {len(expert.outcomes)}"),
        ("from it came", ", ".join(descended)),
        ("folder", str(library.folder(expert.number)) if expert.files else ""),
    ]
    return [(name, value) for name, value in facts if value]


def tasks_table(expert: Expert) -> Table:
    """Return the tasks that an expert learned, a row each: its rows, its score with interval, its labels."""
    table = Table("task", "rows", "score [95%]", "items", "labels", "prototype")
    for task in expert.tasks:
        score, labels = expert.scores.get(task), ", ".join(expert.labels.get(task, ()))
        estimate = "–" if score is None else f"{score['metric']} {number(score['value'])}"
        if score is not None and score["low"] is not None:
            estimate += f" [{number(score['low'])}, {number(score['high'])}]"
        table.add_row(
            escape(task), str(expert.rows.get(task, 0)), escape(estimate), "–" if score is None else str(score["n"]),
            escape(labels), "yes" if task in expert.prototypes else "no",
        )  # fmt: skip
    return table


def candidates_table(library: Library, decision: "Decision") -> Table:
    """Return the experts that a decision is between, best first: how near each is, p(reuse), its bound, its uses."""
    table = Table("", "expert", "nearest task", title=f"The bar is {number(decision.tau)}", title_justify="left")
    for name in ("similarity", "p", "UCB", "uses"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in decision.candidates:
        description = escape(short(library.expert(one.expert).description, 60))
        numbers = ("–" if value is None else number(value) for value in (one.similarity, one.p, one.ucb))
        table.add_row(str(one.expert), description, escape(one.task), *numbers, str(one.uses))
    return table


def layers_table(shapes: "Shapes", found: "Mapping[str, Surveyed]", chosen: Collection[str]) -> Table:
    """Return the linear layers of a base, a row each: shape, gradient's norm, how well it tells tasks apart."""
    surveyed = bool(found)
    titles = ("layer", "outputs x inputs", *(("gradient", "apart: AUC", "gap") if surveyed else ()), "proposed")
    table = Table(*titles)
    for name, (outputs, inputs) in shapes.items():
        layer = found.get(name)
        cells = [name, f"{outputs} x {inputs}"]
        if layer is not None:
            cells += [f"{layer.norm:.2g}", *("–" if n is None else f"{n:.2f}" for n in (layer.auc, layer.gap))]
        table.add_row(*cells, "yes" if name in chosen else "")
    return table

"""The commands that show what there is: ls, show, arena; and the one that makes the pocket model."""

import inspect
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from everlearn.commands.terminal import console

if TYPE_CHECKING:
    from everlearn.streams.domains.domain import DomainStream

KINDS = {
    "strategies": "strategy",
    "streams": "stream",
    "learners": "learner",
    "problems": "problem",
    "curricula": "curriculum",
    "sources": "source",
    "detectors": "detector",
    "rewards": "reward",
    "kinds": "run",
}
Listed = StrEnum("Listed", list(KINDS))
_COLUMNS = ("task", "hub", "metric", "licence", "source", "remark")


def list_things(what: Annotated[Listed, typer.Argument()] = Listed.strategies) -> None:
    """List what there is.

    Strategies, streams, learners, problems, curricula, sources, detectors, rewards, kinds of run.
    """
    from everlearn.catalog import section, summary
    from everlearn.registry import find, names

    kind = KINDS[what.value]
    table = Table(kind, "what it does", *{"strategy": ["paper"], "stream": ["licence", "source"]}.get(kind, []))
    for name in names(kind):
        thing = find(kind, name)
        cells = []
        if kind == "strategy":
            paper = re.search(r"arXiv \d{4}\.\d{5}", section(thing, "Source"))
            cells = [paper.group() if paper else ""]
        elif kind == "stream":
            cells = [escape(section(thing, title)) for title in ("Licence", "Source")]
        table.add_row(name, escape(summary(thing)), *cells)
    console.print(table)


def show(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] NAME", help="A strategy, stream, learner, curriculum, source or detector: ewc, stream dsc."
        ),
    ],
    kind: Annotated[str, typer.Option(help="Which of these, where two share a name.")] = "",
) -> None:
    """Show what one of these does: options and defaults, cost, paper, what it can't stand beside.

    Of a named stream its tasks and orders too, each task with licence and source.
    """
    from everlearn.catalog import limits, options
    from everlearn.errors import ConfigError, describe
    from everlearn.registry import find, names
    from everlearn.streams.domains.domain import DomainStream

    if len(words) > 2 or (len(words) == 2 and kind):
        way_out = "Write everlearn show NAME, or everlearn show KIND NAME"
        raise ConfigError(describe("show", "takes one name", " ".join(words), way_out))
    name, kind = words[-1], words[0] if len(words) == 2 else kind
    shown = ("strategy", "stream", "learner", "curriculum", "source", "detector")
    kinds = [kind] if kind else [k for k in shown if name in names(k)] or ["strategy"]
    cls = find(kinds[0], name)
    console.print(f"[bold]{kinds[0]} {escape(name)}[/bold]\n")
    console.print(inspect.getdoc(cls) or "", markup=False, highlight=False)
    table = Table("option", "type", "default")
    for option in options(cls):
        table.add_row(option.name, escape(option.type), escape(option.default))
    if table.row_count:
        console.print(table)
    for limit, reason in limits(cls) if kinds[0] == "strategy" else []:
        console.print(f"[bold]{limit}[/bold]: {escape(reason)}", highlight=False)
    if issubclass(cls, DomainStream):
        _show_tasks(cls)


def _show_tasks(stream: type["DomainStream"]) -> None:
    """Print the tasks of a named stream and its orders, and what the options of all named streams mean."""
    from everlearn.streams.domains.domain import DomainStream

    table = Table(*(Column(title, overflow="fold") for title in _COLUMNS))
    for name, entry in stream.entries.items():
        cells = (entry.hub_name(), ", ".join(entry.metrics), entry.licence, entry.source, entry.remark)
        table.add_row(escape(name), *map(escape, cells))
    console.print(table)
    for name, tasks in stream.orders.items():
        console.print(f"[bold]order {name}[/bold]: {escape(', '.join(tasks))}", highlight=False)
    console.print(f"\n{inspect.getdoc(DomainStream)}", markup=False, highlight=False)


def arena(
    n: Annotated[int, typer.Option("-n", help="How many problems.", min=1)] = 10,
    types: Annotated[list[str] | None, typer.Option("--type", "--types", help="Only this; may be repeated.")] = None,
    difficulty: Annotated[int | None, typer.Option(help="1 to 5; without it, mixed.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    split: Annotated[str, typer.Option(help="train, validation or evaluation.")] = "train",
) -> None:
    """Print samples of the reasoning arena."""
    from everlearn.streams.arena.generate import generate_batch

    for problem in generate_batch(n, types=types or None, difficulty=difficulty, seed=seed, split=split):
        console.rule(f"{problem.type}, difficulty {problem.difficulty}", align="left")
        console.print(problem.prompt, markup=False, highlight=False)
        console.print(problem.answer, style="bold green", markup=False, highlight=False)


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A pretraining recipe, such as recipes/pocket.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the model.")] = Path("runs/pocket"),
) -> None:
    """Make the pocket model from nothing; started again, it goes on where it stopped."""
    from everlearn.models.pocket.pretrain import pretrain as pretrain_pocket

    folder = pretrain_pocket(recipe, out)
    console.print(f"Model: {folder}", highlight=False)

"""The commands that show what there is: ls, show, arena; and the one that makes the pocket model."""

import inspect
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from everlearn.commands.terminal import console

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


def list_things(what: Annotated[Listed, typer.Argument()] = Listed.strategies) -> None:
    """List what there is.

    Strategies, streams, learners, problems, curricula, sources, detectors, rewards, kinds of run.
    """
    from everlearn.catalog import section, summary
    from everlearn.registry import find, names

    kind = KINDS[what.value]
    table = Table(kind, "what it does", *(["paper"] if kind == "strategy" else []))
    for name in names(kind):
        thing = find(kind, name)
        paper = re.search(r"arXiv \d{4}\.\d{5}", section(thing, "Source"))
        cells = [paper.group() if paper else ""] if kind == "strategy" else []
        table.add_row(name, escape(summary(thing)), *cells)
    console.print(table)


def show(
    name: Annotated[str, typer.Argument(help="A strategy, stream, learner, curriculum, source or detector.")],
    kind: Annotated[str, typer.Option(help="Which of these, where two share a name.")] = "",
) -> None:
    """Show what one of these does: options and defaults, cost, paper, what it can't stand beside."""
    from everlearn.catalog import limits, options
    from everlearn.registry import find, names

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

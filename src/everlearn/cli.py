"""The command line. Exit codes: 0 done, 1 error, 2 the gate refused, 130 paused or interrupted."""

import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from everlearn.cli_home import add_home_commands
from everlearn.cli_online import add_online_command
from everlearn.errors import ConfigError, EverlearnError, Paused, describe

if TYPE_CHECKING:
    from everlearn.listener import Listener
    from everlearn.report.advice import Advice

PAUSED = 130
UsageError = typer.BadParameter.__base__  # typer brings its own click; this is its error of a wrong command line

app = typer.Typer(
    help="Continual learning for language models: keep teaching a model, keep what it knows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()

Out = Annotated[Path, typer.Option(help="Folder that the results go to.")]
Seeds = Annotated[int | None, typer.Option(help="Run this many seeds, 0, 1, 2, …", min=1)]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change a value of the recipe: learner.epochs=5.")]


@app.command()
def demo(
    model: Annotated[str, typer.Option(help="pocket, or smollm2: a real language model, minutes more.")] = "pocket",
    out: Annotated[Path | None, typer.Option(help="Folder that the results go to (default: runs/demo…).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all runs.")] = 0,
) -> None:
    """Watch a language model forget, and everlearn prevent it: two or three runs, a table and a report."""
    from everlearn.demo import run_demo

    _one_process("demo")
    out = out or Path("runs/demo" if model == "pocket" else f"runs/demo_{model}")
    folders = run_demo(out, seed, _bars, model)
    _print_runs(folders)
    console.print(f"\nReport: {out / 'report.html'}", highlight=False)


@app.command("run")
def run_recipe(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    out: Out,
    settings: Settings = None,
    seeds: Seeds = None,
) -> None:
    """Learn a recipe's stream of tasks and write results and a report to a new folder."""
    from everlearn.config import load_recipe
    from everlearn.runs import run

    overrides = list(settings or [])
    if seeds is not None:
        overrides += ["seed=null", f"seeds={list(range(seeds))}"]
    loaded = load_recipe(recipe, overrides)
    with _progress() as listener:
        run(loaded, out, listener=listener)
    _finish(out)


@app.command()
def meta(
    recipe: Annotated[Path, typer.Argument(help="A meta-learning recipe (YAML), such as recipes/meta_arena.yaml.")],
    out: Out,
    settings: Settings = None,
    seeds: Seeds = None,
) -> None:
    """Learn to learn from some tasks; show what a few steps then do on tasks held out, beside a plain start."""
    from everlearn.meta import run_meta

    _one_process("meta")
    overrides = list(settings or [])
    if seeds is not None:
        overrides.append(f"seeds={list(range(seeds))}")
    with _progress() as listener:
        results = run_meta(recipe, out, overrides, listener)
    _print_meta(results, out)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of a run of any kind, an advice, or a model home.")],
) -> None:
    """Go on with a run of any kind, an advice, or a home's learning, that was paused or killed."""
    from everlearn.advise import go_on, is_advice
    from everlearn.cli_home import resume_home
    from everlearn.cli_online import resume_online_run
    from everlearn.home import Home
    from everlearn.meta import is_meta_run, resume_meta
    from everlearn.online import is_online
    from everlearn.runs import resume as resume_run

    if Home.is_home(folder):
        resume_home(folder)
        return
    if is_online(folder):
        resume_online_run(folder)
        return
    if is_advice(folder):
        _print_advice(go_on(folder, _bars, console.print), folder)
        return
    if is_meta_run(folder):
        with _progress() as listener:
            results = resume_meta(folder, listener)
        _print_meta(results, folder)
        return
    with _progress() as listener:
        resume_run(folder, listener)
    _finish(folder)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("runs/compare"),
) -> None:
    """Draw runs side by side: matrices, curves over tasks, retention against plasticity, cost; online runs likewise."""
    from everlearn.cli_online import compare_online
    from everlearn.online import is_online
    from everlearn.report.html import write_report

    if any((out / name).exists() for name in ("recipe.yaml", "meta.yaml")):
        raise ConfigError(describe("--out", "is the folder of a run", str(out), "Name another for the comparison"))
    online = [run for run in runs if is_online(run)]
    folders = _named(runs, online)
    if online:
        compare_online(folders, out)
        return
    write_report(folders, out)
    _print_runs(folders)
    console.print(f"\nReport: {out / 'report.html'}", highlight=False)


@app.command()
def advise(
    stream: Annotated[list[str], typer.Option(help="A recipe; data files or folders (repeat it); or a stream's name.")],
    model: Annotated[
        str | None, typer.Option(help="pocket, smollm2, a folder, a GGUF file, a hub id, mlp (default: pocket).")
    ] = None,
    budget: Annotated[str, typer.Option(help="How long it may take: 90s, 10m, 1h.")] = "10m",
    strategies: Annotated[list[str] | None, typer.Option(help="What to try: replay,ewc,replay+ewc.")] = None,
    out: Out = Path("runs/advise"),
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="Of all trials (default: the recipe's, or 0).")] = None,
) -> None:
    """Try a few methods on your own data for a few minutes, and write a recipe with the one to take."""
    from everlearn.advise import advise as find_advice
    from everlearn.advise import content_of, parse_budget

    _one_process("advise")
    named = None if strategies is None else [n.strip() for entry in strategies for n in entry.split(",") if n.strip()]
    budget_s, content = parse_budget(budget), content_of(stream, model, settings or (), seed)
    found = find_advice(content, out, budget_s=budget_s, strategies=named, listen=_bars, tell=console.print)
    _print_advice(found, out)


@app.command()
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


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A pretraining recipe, such as recipes/pocket.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the model.")] = Path("runs/pocket"),
) -> None:
    """Make the pocket model from nothing; started again, it goes on where it stopped."""
    from everlearn.models.pocket.pretrain import pretrain as pretrain_pocket

    folder = pretrain_pocket(recipe, out)
    console.print(f"Model: {folder}", highlight=False)


KINDS = {
    "strategies": "strategy",
    "streams": "stream",
    "learners": "learner",
    "problems": "problem",
    "curricula": "curriculum",
    "sources": "source",
    "detectors": "detector",
}
Listed = StrEnum("Listed", list(KINDS))


@app.command("ls")
def list_things(what: Annotated[Listed, typer.Argument()] = Listed.strategies) -> None:
    """List what there is to choose from: strategies, streams, learners; problems and curricula; sources, detectors."""
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


@app.command()
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


add_home_commands(app)
add_online_command(app)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; no error shows a stack trace."""
    command = typer.main.get_command(app)
    try:
        return command.main(args=arguments, prog_name="everlearn", standalone_mode=False) or 0
    except UsageError as error:
        error.show()
        return 1
    except EverlearnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Paused as paused:
        print(f"Paused. Go on with: everlearn resume {paused}", file=sys.stderr)
        return PAUSED
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=sys.stderr)
        return PAUSED


def script() -> None:
    """Entry point of the installed command."""
    sys.exit(main())


@contextmanager
def _progress() -> Iterator:
    """Yield a listener that draws progress, on the first process only."""
    from everlearn.listener import Listener
    from everlearn.report.progress import ProgressBars

    if os.environ.get("RANK", "0") != "0":
        yield Listener()
        return
    with ProgressBars(console) as bars:
        yield bars


def _bars(name: str) -> "AbstractContextManager[Listener]":
    """Return the progress bars of one of several runs."""
    from everlearn.report.progress import ProgressBars

    return ProgressBars(console, name)


def _print_advice(advice: "Advice", out: Path) -> None:
    from rich import box

    from everlearn.report.advice import advice_grid, caveats, sentences
    from everlearn.report.table import to_rich

    table = to_rich(advice_grid(advice, intervals=False))
    table.box, table.collapse_padding = box.SIMPLE_HEAD, True  # seven columns in 80 characters
    console.print(table)
    for line in (*sentences(advice), *caveats(advice)):
        console.print(line, markup=False, highlight=False)
    console.print(f"\nRecipe: {out / 'recipe.yaml'}\nReport: {out / 'report.html'}", highlight=False, markup=False)


def _print_meta(results: dict[str, Any], out: Path) -> None:
    from everlearn.report.meta import meta_grid
    from everlearn.report.table import to_rich

    console.print(to_rich(meta_grid(results["summary"])))
    console.print(f"\nPicture: {out / 'meta.png'}", highlight=False, markup=False)


def _finish(out: Path) -> None:
    """Write and show the report of a run that ended."""
    from everlearn.report.html import write_report

    if os.environ.get("RANK", "0") != "0":
        return
    folders = {out.name: out}
    write_report(folders, out)
    _print_runs(folders)
    console.print(f"\nReport: {out / 'report.html'}", highlight=False)


def _print_runs(folders: dict[str, Path]) -> None:
    from everlearn.report.table import compare_table, matrix_grid, to_rich
    from everlearn.report.views import load_views

    for view in load_views(folders):
        console.print(to_rich(matrix_grid(view)))
    console.print(compare_table(folders))


def _named(runs: list[Path], online: list[Path]) -> dict[str, Path]:
    """Name runs by their folders; by whole paths where two folders share a name."""
    if online and len(online) < len(runs):
        way_out = "Compare online runs with online runs"
        raise ConfigError(describe("compare", "runs of two kinds", [str(run) for run in runs], way_out))
    names = [run.resolve().name for run in runs]
    named = dict(zip(names if len(set(names)) == len(names) else map(str, runs), runs, strict=True))
    for run in runs:
        if run not in online and not (run / "results.jsonl").exists():
            way_out = "Name folders that everlearn run or everlearn online wrote"
            raise ConfigError(describe("compare", "there are no results in the folder", str(run), way_out))
    return named


def _one_process(command: str) -> None:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        way_out = "Start it without torchrun"
        raise ConfigError(describe(command, "runs in one process", os.environ["WORLD_SIZE"], way_out))


if __name__ == "__main__":
    script()

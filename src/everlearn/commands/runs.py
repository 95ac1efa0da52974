"""The commands of runs: run, meta, resume, compare, and the demo. None of them knows what kinds of run there are."""

from pathlib import Path
from typing import Annotated, Any

import typer

from everlearn.commands.terminal import bars, check_one_process, console, is_first_process
from everlearn.errors import ConfigError, describe

Out = Annotated[Path, typer.Option(help="Folder that the results go to.")]
Seeds = Annotated[int | None, typer.Option(help="Run this many seeds, 0, 1, 2, …", min=1)]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change a value of the recipe: learner.epochs=5.")]


def demo(
    model: Annotated[str, typer.Option(help="pocket, or smollm2: a real language model, minutes more.")] = "pocket",
    out: Annotated[Path | None, typer.Option(help="Folder that the results go to (default: runs/demo…).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all runs.")] = 0,
) -> None:
    """Watch a language model forget, and everlearn prevent it: two or three runs, a table and a report."""
    from everlearn.demo import run_demo
    from everlearn.runs import Supervised

    check_one_process("demo")
    out = out or Path("runs/demo" if model == "pocket" else f"runs/demo_{model}")
    with bars() as listener:
        folders = run_demo(out, seed, listener, model)
    _show(Supervised.draw(folders, out))


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML) of any kind of run.")],
    out: Out,
    settings: Settings = None,
    seeds: Seeds = None,
) -> None:
    """Do what a recipe of any kind says, such as learn a stream of tasks; results and report go to a new folder."""
    from everlearn.config import read_content
    from everlearn.runs import read_recipe

    content = read_content(recipe, settings or [])
    if seeds is not None:
        content.pop("seed", None)
        content["seeds"] = list(range(seeds))
    run_and_show(*read_recipe(content), out)


def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of a run of any kind, an advice, or a model home.")],
) -> None:
    """Go on with a run of any kind, an advice, or a home's learning, that was paused or killed."""
    from everlearn.runs import folder_kind
    from everlearn.runs import resume as go_on

    kind = folder_kind(folder)
    with bars(kind) as listener:
        came_of = go_on(folder, listener)
    _finish(kind, folder, came_of, listener)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, all of one kind.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("runs/compare"),
) -> None:
    """Draw runs of one kind side by side: what each learned and kept, curves, cost, and whether they differ."""
    from everlearn.runs import folder_kind, folder_kinds

    if out.is_dir() and any(kind.holds(out) for kind in folder_kinds()):
        raise ConfigError(describe("--out", "is the folder of a run", str(out), "Name another for the comparison"))
    kinds = {run: folder_kind(run) for run in runs}
    if len(kinds) < len(runs):
        raise ConfigError(describe("compare", "a folder is named twice", list(map(str, runs)), "Name each once"))
    if len(set(kinds.values())) > 1:
        found = {str(run): kind.name for run, kind in kinds.items()}
        raise ConfigError(describe("compare", "the runs are not of one kind", found, "Compare those of one kind"))
    names = [run.resolve().name for run in runs]
    unique = names if len(set(names)) == len(names) else map(str, runs)  # whole paths where two share a name
    _show(kinds[runs[0]].draw(dict(zip(unique, runs, strict=True)), out))


def run_and_show(kind: Any, recipe: Any, out: Path) -> None:
    """Run a recipe of a kind in a new folder, with its progress, and show what came of it."""
    from everlearn.runs import run as run_recipe

    with bars(kind) as listener:
        came_of = run_recipe(recipe, out, listener=listener)
    _finish(kind, out, came_of, listener)


def _finish(kind: Any, folder: Path, came_of: Any, listener: Any) -> None:
    code = kind.finish(folder, came_of, listener, console) if is_first_process() else 0
    if code:
        raise typer.Exit(code)


def _show(lines: list[Any]) -> None:
    for line in lines:
        console.print(line, highlight=False)

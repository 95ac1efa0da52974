"""The commands of a library of experts: ls, show, add, export, merge, prune."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from everlearn.commands.terminal import console
from everlearn.errors import ConfigError, StateError, check_choice, describe

app = typer.Typer(help="A library of LoRA experts of one frozen model.", no_args_is_help=True)
LibraryFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the library.")]
KINDS = {"causal": "prompt", "classify": "classify", "tag": "tag"}  # of networks, and of tasks that need them


@app.command("ls")
def list_experts(
    folder: LibraryFolder,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are retired or pruned.")] = False,
) -> None:
    """List the experts: how each came to be, what it learned, how often it was used."""
    from everlearn.experts import Library
    from everlearn.experts.views import experts_table

    library = Library.open(folder)
    console.print(experts_table(library, everything=everything))
    for problems in library.damaged().values():
        console.print(problems[0], markup=False, highlight=False)


@app.command()
def show(folder: LibraryFolder, expert: Annotated[int, typer.Argument(metavar="EXPERT", help="Its number.")]) -> None:
    """Show all that is known of an expert, and compare its files with their checksums."""
    from everlearn.experts import Library
    from everlearn.experts.views import facts_of, tasks_table

    library = Library.open(folder)
    record = library.expert(expert)
    console.print(f"[bold]expert {expert}[/bold]")
    for name, value in facts_of(library, record):
        console.print(f"{name}: {escape(value)}", highlight=False)
    if record.tasks:
        console.print(tasks_table(record))
    problems = library.problems(expert)
    if problems:
        raise StateError(problems[0])
    console.print("Its files are sound." if record.files else "Its files were pruned.", highlight=False)


@app.command()
def add(
    folder: LibraryFolder,
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="A LoRA's folder, as peft writes it.")],
    description: Annotated[str | None, typer.Option(help="What it is for, in words.")] = None,
    tag: Annotated[str | None, typer.Option(help="Its name for people.")] = None,
    same_base: Annotated[
        bool, typer.Option("--same-base", help="It was trained on this base, though it doesn't say so.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Make the library, of this base, if there is none.")] = None,
    kind: Annotated[str, typer.Option(help="Of a new library: causal, classify or tag.")] = "causal",
    rank: Annotated[int, typer.Option(help="Of a new library: the largest that an expert may have.")] = 16,
    max_loaded: Annotated[int, typer.Option(help="Of a new library: experts that a model holds at most.")] = 8,
) -> None:
    """Take a LoRA of the same base into the library."""
    from everlearn.experts import Library, import_adapter

    if not Library.is_library(folder) and model is not None:
        _create(folder, model, kind, rank, max_loaded)
    added = import_adapter(Library.open(folder), adapter, description, tag=tag, same_base=same_base)
    console.print(f"Expert {added.number}: rank {added.rank} on {', '.join(added.targets)}.", highlight=False)


@app.command()
def export(
    folder: LibraryFolder,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    expert: Annotated[int | None, typer.Option(help="Only this one; else each into a folder of its own.")] = None,
    task: Annotated[str | None, typer.Option(help="Of a classifier: whose head goes with it.")] = None,
) -> None:
    """Write experts as plain peft adapters, for use without everlearn."""
    from everlearn.experts import Library, export_all, export_expert

    library = Library.open(folder)
    if expert is None and task is not None:
        raise ConfigError(describe("--task", "is for one expert", task, "Name it with --expert"))
    written = export_all(library, out) if expert is None else [export_expert(library, expert, out, task)]
    for path in written:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command()
def merge(
    folder: LibraryFolder,
    experts: Annotated[list[int], typer.Argument(metavar="EXPERTS...", help="Their numbers.")],
    description: Annotated[str, typer.Option(help="What the new one is for, in words.")],
    kind: Annotated[
        str, typer.Option(help="cat, svd, or ties, dare_linear, dare_ties, magnitude_prune + _svd.")
    ] = "svd",
    weight: Annotated[list[float] | None, typer.Option(help="Of each expert, in order (default: alike).")] = None,
    rank: Annotated[int | None, typer.Option(help="Of the new one, unless kind is cat.")] = None,
    density: Annotated[float | None, typer.Option(help="Share of the numbers that ties, dare, magnitude keep.")] = None,
    seed: Annotated[int, typer.Option(help="Of what DARE drops.")] = 0,
    tag: Annotated[str, typer.Option(help="Its name for people.")] = "",
    retire: Annotated[bool, typer.Option("--retire", help="Take the merged ones out of use.")] = False,
) -> None:
    """Make one expert out of several."""
    from everlearn.experts import Library, Merge

    library = Library.open(folder)
    how = Merge(kind, None if not weight else tuple(weight), rank, density, seed)
    with library.changing():
        made = library.merge(experts, description, how, tag=tag)
        for number in dict.fromkeys(experts) if retire else ():
            library.retire(number, f"merged into {made.number}")
    console.print(f"Expert {made.number}: rank {made.rank}, from {', '.join(map(str, experts))}.", highlight=False)


@app.command()
def prune(
    folder: LibraryFolder,
    experts: Annotated[list[int] | None, typer.Argument(metavar="[EXPERTS]...", help="Retired first.")] = None,
    reason: Annotated[str, typer.Option(help="Why these are retired; kept in their records.")] = "pruned",
) -> None:
    """Delete what is not in use: retired experts, earlier weights. Records stay."""
    from everlearn.experts import Library
    from everlearn.report.text import size

    library = Library.open(folder)
    freed = library.prune(*(experts or ()), reason=reason)
    console.print(f"{size(freed)} freed; {len(library)} experts in use.", highlight=False)


def _create(folder: Path, model: str, kind: str, rank: int, max_loaded: int) -> None:
    from everlearn.experts import Library
    from everlearn.models.load import ModelConfig, load_model
    from everlearn.types import Task

    check_choice("--kind", kind, KINDS)
    loaded = load_model(ModelConfig(model), [Task("any", KINDS[kind], [], [])])
    Library.create(folder, loaded, rank=rank, max_loaded=max_loaded)

"""The commands of a library of experts: ls, show, layers, route, add, export, merge, tidy, restore, prune."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from everlearn.commands.terminal import console
from everlearn.errors import ConfigError, StateError, check_choice, describe

if TYPE_CHECKING:
    from everlearn.experts import Expert, Library
    from everlearn.models.load import Model
    from everlearn.types import Task

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
def layers(
    model: Annotated[str, typer.Option(help="pocket, smollm2, a folder, a GGUF file or a hub id.")],
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="Files or folders of tasks (may repeat): how well each layer tells them apart."),
    ] = None,
    kind: Annotated[str, typer.Option(help="Without rows: causal, classify or tag.")] = "causal",
    k: Annotated[int, typer.Option("--k", help="Rows of a task that are one look at it.")] = 16,
) -> None:
    """List the layers whose gradients can be sketched, and propose some: grad_sketch_layers."""
    from rich.progress import track

    from everlearn.experts.base import linear_layers
    from everlearn.experts.signals.layers import proposed, survey
    from everlearn.experts.views import layers_table
    from everlearn.streams.files import FileStream

    tasks = FileStream(paths=[str(path) for path in rows]).build().tasks if rows else ()
    loaded = _load(model, kind, tasks)
    told = track(tasks, "Tasks", console=console, transient=True)
    found = survey(loaded, told, k) if tasks else {}
    shapes = linear_layers(loaded.adapters)
    chosen = proposed(shapes, found)
    console.print(layers_table(shapes, found, chosen))
    console.print(f"grad_sketch_layers: [{', '.join(chosen)}]", highlight=False, markup=False, soft_wrap=True)


@app.command()
def route(
    folder: LibraryFolder,
    description: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="What the task is, in words.")] = None,
    rows: Annotated[
        Path | None, typer.Option(help="A file of its rows: all that is known of a task is then compared.")
    ] = None,
) -> None:
    """Show which experts are near a task, and what the router would do with it. Nothing changes."""
    from everlearn.experts import Library
    from everlearn.experts.decisions import decision_sentence
    from everlearn.experts.routing import route as route_task
    from everlearn.experts.views import candidates_table
    from everlearn.streams.files import load_task

    if description is None and rows is None:
        way_out = 'Write what it is: everlearn experts route FOLDER "reviews of books"; or name its rows: --rows FILE'
        raise ConfigError(describe("experts route", "is told of no task", None, way_out))
    library = Library.open(folder)
    task = None if rows is None else load_task(rows.stem, str(rows))
    model = _model_of(library, [] if task is None else [task])
    decision = route_task(library, model, rows.stem if description is None else description, task)
    if decision.candidates:
        console.print(candidates_table(library, decision))
    console.print(decision_sentence(decision), highlight=False, markup=False)
    if task is None:
        console.print("By the description alone, so p is a guess; --rows FILE tells more.", highlight=False)


@app.command()
def add(
    folder: LibraryFolder,
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="A LoRA's folder, as peft writes it.")],
    description: Annotated[str | None, typer.Option(help="What it is for, in words.")] = None,
    tag: Annotated[str | None, typer.Option(help="Its name for people.")] = None,
    rows: Annotated[
        Path | None, typer.Option(help="A file of rows that the expert is for: what routers know it by.")
    ] = None,
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
    from everlearn.streams.files import load_task

    task = None if rows is None else load_task(rows.stem, str(rows))
    if not Library.is_library(folder) and model is not None:
        _create(folder, model, kind, rank, max_loaded)
    library = Library.open(folder)
    profile = None if task is None else _profile_of(library, task)
    with library.changing():
        added = import_adapter(library, adapter, description, tag=tag, same_base=same_base)
        if profile is not None:
            profile(added)
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
def tidy(
    folder: LibraryFolder,
    rows: Annotated[
        list[Path],
        typer.Option(help="Files, each named as a task that experts learned, of rows that none was trained on."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    merge_above: Annotated[float, typer.Option(help="Least similarity of two experts' profiles.")] = 0.8,
    deltas_above: Annotated[float, typer.Option(help="Least cosine of what they add to the weights.")] = 0.0,
    margin: Annotated[float, typer.Option(help="By how much one for both may do worse, in the task's metric.")] = 0.05,
    confidence: Annotated[float, typer.Option(help="Of the paired interval that must lie above -margin.")] = 0.9,
) -> None:
    """Let one expert take the place of two that are alike, where it answers rows of all their tasks as well.

    What goes is retired: `everlearn experts restore` brings it back, until `prune`.
    """
    from everlearn.experts import Library
    from everlearn.experts.tidying import TidyConfig, tidy_by_rows
    from everlearn.home import Home
    from everlearn.streams.files import load_task

    if Home.is_home(folder.resolve().parent) and not dry_run:
        what = "belongs to a home, whose versions name their experts"
        raise ConfigError(describe(str(folder), what, str(folder.resolve().parent), "Look with --dry-run"))
    config = TidyConfig(merge_above=merge_above, deltas_above=deltas_above, margin=margin, confidence=confidence)
    library = Library.open(folder)
    tasks = [load_task(path.stem, str(path)) for path in rows]
    for finding in (found := tidy_by_rows(library, _model_of(library, tasks), tasks, config, dry_run=dry_run)):
        console.print(finding.sentence(), highlight=False, markup=False)
    n_good = sum(finding.good for finding in found)
    done = "would be replaced" if dry_run else "replaced"
    console.print(f"{len(found)} pairs were near, {n_good} {done}; {len(library)} experts in use.", highlight=False)


@app.command()
def restore(
    folder: LibraryFolder, expert: Annotated[int, typer.Argument(metavar="EXPERT", help="Its number.")]
) -> None:
    """Take a retired expert back into use."""
    from everlearn.experts import Library

    library = Library.open(folder)
    library.reinstate(expert)
    console.print(f"Expert {expert} is in use again; {len(library)} are.", highlight=False)


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

    Library.create(folder, _load(model, kind), rank=rank, max_loaded=max_loaded)


def _load(model: str, kind: str, tasks: "Sequence[Task]" = ()) -> "Model":
    """Load a model for tasks; without any, for those of a kind."""
    from everlearn.models.load import ModelConfig, load_model
    from everlearn.types import Task

    check_choice("--kind", kind, KINDS)
    return load_model(ModelConfig(model), tasks or [Task("any", KINDS[kind], [], [])])


def _profile_of(library: "Library", task: "Task") -> "Callable[[Expert], None]":
    """Return what gives an expert a prototype of a task."""
    from everlearn.experts.routing import signals_of

    signals = signals_of(library, _model_of(library, [task]))

    def profile(expert: "Expert") -> None:
        signals.bind(library)
        library.add_prototype(expert.number, task.name, signals.of(expert.description, task, task.train))

    return profile


def _model_of(library: "Library", tasks: "Sequence[Task]") -> "Model":
    """Load the base of a library, for tasks that it can learn."""
    from everlearn.experts.base import Base
    from everlearn.models.load import NETWORK_OF_KIND

    kind = library.base.kind
    for task in tasks:
        if NETWORK_OF_KIND[task.kind] != kind:
            way_out = f"Give rows for a network of the kind {kind}"
            raise ConfigError(describe("--rows", "are for another kind of model", task.kind, way_out))
    model = _load(library.base.name, kind, tasks)
    library.base.check_same(Base.of(model), library.base.name)
    return model

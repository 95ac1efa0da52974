"""The commands on Countdown: data for it, and its recipes for clusters."""

import os
from pathlib import Path
from typing import Annotated

import typer

from everlearn.commands.runs import Settings
from everlearn.commands.terminal import console
from everlearn.errors import ConfigError, describe

app = typer.Typer(help="Countdown, where numbers and operators have to reach a target.", no_args_is_help=True)


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Folder that gets a folder for each group.")] = Path("data/continual"),
    group: Annotated[
        list[str] | None,
        typer.Option(help="0 to 3, pmm, pmd, mmd, amd, or operators such as +*, the newest last (default: 0 to 3)."),
    ] = None,
    n_train: Annotated[int, typer.Option(help="Problems of a group to train on.")] = 100_000,
    n_test: Annotated[int, typer.Option(help="Problems of a group that are never trained on.")] = 1_000,
    size: Annotated[
        list[int] | None, typer.Option(help="How many numbers, 3 to 6; may be repeated (default: 3 and 4).")
    ] = None,
    min_number: Annotated[int, typer.Option(help="The smallest number.")] = 1,
    max_number: Annotated[int, typer.Option(help="The largest number.")] = 97,
    min_target: Annotated[int, typer.Option(help="The smallest target.")] = 1,
    max_target: Annotated[int, typer.Option(help="The largest target.")] = 100,
    require_new_operator: Annotated[
        bool, typer.Option("--require-new-operator", help="Only problems unsolvable without the newest operator.")
    ] = False,
    prompt: Annotated[str, typer.Option(help="instruct, or short for small models.")] = "instruct",
    seed: Annotated[int, typer.Option(help="Which problems are drawn.")] = 0,
    processes: Annotated[
        int | None, typer.Option(help="Groups at a time (default: as many as there are cores).", min=1)
    ] = None,
) -> None:
    """Write solvable problems for each operator group as Parquet, in the shape that verl's trainers read."""
    from rich.progress import Progress

    from everlearn.streams.countdown.generate import Order
    from everlearn.streams.countdown.generate import generate as generate_files
    from everlearn.streams.countdown.groups import Space

    space = Space(
        sizes=tuple(size or (3, 4)),
        min_number=min_number,
        max_number=max_number,
        min_target=min_target,
        max_target=max_target,
        require_new_operator=require_new_operator,
    )
    order = Order(space, tuple(group or ("0", "1", "2", "3")), n_train, n_test, prompt, seed)
    n_processes = processes or os.cpu_count() or 1
    with Progress(console=console, transient=True) as bar:
        groups = bar.add_task("Groups", total=len(order.groups))

        def done(name: str, notes: list[str]) -> None:
            bar.advance(groups)
            for note in notes:
                console.print(note, highlight=False)

        paths = generate_files(order, out, n_processes, done)
    for path in paths:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command("export-verl")
def export_verl(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML) of reinforcement on Countdown.")],
    out: Annotated[Path, typer.Argument(help="The new folder, to be copied to the cluster.", metavar="DIR")],
    tensor_parallel: Annotated[
        int | None,
        typer.Option(
            help="GPUs that draw answers together, each with a part of the weights. [default: as the recipe has it]",
            min=1,
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
) -> None:
    """Write a recipe as a folder that verl trains from on Ray: data, configuration, reward and launch script."""
    from everlearn.kinds.reinforcement.recipe import ReinforcementRecipe
    from everlearn.kinds.reinforcement.verl.export import export_verl as write_folder
    from everlearn.runs import read_recipe

    _, content = read_recipe(recipe, settings or ())
    if not isinstance(content, ReinforcementRecipe):
        way_out = "Give one with learner: {name: ppo}"
        raise ConfigError(describe(str(recipe), "is no recipe of reinforcement", recipe.name, way_out))
    for note in write_folder(content, out, recipe.stem, tensor_parallel):
        console.print(note, highlight=False)
    console.print(f"Start it there: {out / 'launch.sh'}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model's folder, or a hub id.")],
    data: Annotated[Path, typer.Option(help="Folder with a folder of test.parquet for each group.")] = Path(
        "data/continual"
    ),
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of an answer.", min=1)] = 1024,
    n: Annotated[int | None, typer.Option(help="The first so many problems of a group (default: all).", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Problems answered at once.", min=1)] = 64,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the scores, with each problem's outcome.")] = None,
) -> None:
    """Tell how many test problems of each group a model solves; a model that verl trained, say."""
    from dataclasses import asdict

    from rich.table import Table

    from everlearn.evaluation.countdown import success_rates
    from everlearn.state import write_json

    table, scores = Table("group", "solved", "95%", "n"), []
    with console.status("Answering"):
        for score in success_rates(model, data, max_new_tokens=max_new_tokens, n=n, batch_size=batch_size):
            scores.append(asdict(score))
            interval = "" if score.low is None else f"{score.low:.3f} to {score.high:.3f}"
            table.add_row(score.task, f"{score.value:.3f}", interval, str(score.n))
    if out is not None:
        write_json(out, {"model": model, "data": str(data), "scores": scores})
    console.print(table)

"""The command of experiments: a grid of recipes, run cell by cell, and analysed together."""

from pathlib import Path
from typing import Annotated

import typer

from everlearn.commands.runs import Settings
from everlearn.commands.terminal import check_one_process, console
from everlearn.errors import ConfigError, check_choice, check_number, describe


def bench(
    grid: Annotated[Path | None, typer.Argument(help="A grid (YAML), see docs/bench.md.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that cells and analysis go to; what is done there stays.")] = Path(
        "runs/bench"
    ),
    jobs: Annotated[int, typer.Option(help="Cells run at once; each has its share of the cores.", min=1)] = 1,
    hours: Annotated[float | None, typer.Option(help="How long it may take; then cells are paused.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and what they would take.")] = False,
    analyse: Annotated[Path | None, typer.Option(help="Only write the analysis of this folder again.")] = None,
    engine: Annotated[str, typer.Option(help="processes of this machine, or ray.")] = "processes",
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster's (host:6379); else one is started.")] = None,
    settings: Settings = None,
    init: Annotated[Path | None, typer.Option(help="Write a small grid to begin with into this file.")] = None,
) -> None:
    """Run a grid of recipes: streams × models × methods × orders × sizes × seeds, cell by cell, and compare them.

    Started again, it goes on: cells that are done stay, those begun go on, those that failed are tried again. A cell
    that fails is named and the others go on; the exit code is then 1.
    """
    from everlearn.bench.analysis import analyse as write_analysis
    from everlearn.bench.course import Options, bench
    from everlearn.bench.probe import dry_run as list_cells
    from everlearn.bench.start import write_start

    check_one_process("bench")
    if init is not None:
        write_start(init)
        _tell(f"Written: {init}. Run it: everlearn bench {init} --out {out}")
        return
    if analyse is not None:
        _show(write_analysis(analyse))
        return
    _check(grid, hours, engine, ray_address)
    options = Options(jobs, hours, engine, ray_address, tuple(settings or ()))
    if dry_run:
        _show(list_cells(grid, options, _tell))
        return
    found = bench(grid, out, options, _tell)
    if len(found.left()) < len(found.cells):
        _show(write_analysis(out))
    left = found.left()
    if left:
        _tell(f"{len(left)} cells are not done; go on with the same command.")
    for name, error in found.failures.items():
        _tell(f"failed: {name}: {error}")
    if found.failures:
        raise typer.Exit(1)


def _check(grid: Path | None, hours: float | None, engine: str, ray_address: str | None) -> None:
    if grid is None:
        way_out = "everlearn bench GRID.yaml --out FOLDER; everlearn bench --init grid.yaml writes one to begin with"
        raise ConfigError(describe("bench", "no grid is named", grid, way_out))
    check_choice("--engine", engine, ("processes", "ray"))
    if hours is not None:
        check_number("--hours", hours, above=0)
    if ray_address is not None and engine != "ray":
        raise ConfigError(describe("--ray-address", "is of --engine ray", ray_address, "Write --engine ray as well"))


def _tell(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _show(lines: list) -> None:
    for line in lines:
        console.print(line, highlight=False)

"""The commands of a model home: init, learn, check, log, diff, report, rollback, retire, export."""

from pathlib import Path
from typing import Annotated, Any

import typer

from everlearn.commands.terminal import bars, console
from everlearn.errors import ConfigError, StateError, describe

HomeFolder = Annotated[Path, typer.Argument(metavar="HOME", help="Folder of the home.")]
VALIDATION = "Rows to judge epochs by; without them some training rows are held out, and given back at the end."
Sets = Annotated[list[str] | None, typer.Option("--set", help="Any other value: learner.clip=0.5.")]
Pairs = Annotated[list[str] | None, typer.Option("--column", help="Our column = the file's: prompt=question.")]
Names = Annotated[list[str] | None, typer.Option("--strategy", help="replay,ewc; or repeated; none: plain training.")]


def init(
    home: HomeFolder,
    model: Annotated[
        str | None, typer.Option(help="pocket, smollm2, a folder, a GGUF file, or a hub id (default: pocket).")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML with model:, learner:, strategies:.")] = None,
    adapter: Annotated[str | None, typer.Option(help="lora, or full for all weights.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of the LoRA.")] = None,
    head: Annotated[str | None, typer.Option(help="For classifiers: task (a head per task) or shared.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, fast, float32, bfloat16 or float16.")] = None,
    strategy: Names = None,
    seed: Annotated[int | None, typer.Option(help="Of adapters, heads and the order of rows.")] = None,
    abilities: Annotated[
        list[str] | None,
        typer.Option(
            help="What the base can do, watched: self (default), arena, files; or none. See docs/abilities.md"
        ),
    ] = None,
    answers: Annotated[
        bool | None, typer.Option("--answers/--no-answers", help="Keep what was answered to each evaluation item.")
    ] = None,
    settings: Sets = None,
) -> None:
    """Make a home for a model. Version 0 is the model as it is."""
    from everlearn.home import Home
    from everlearn.home.settings import settings_from

    content = _recipe(recipe)
    chosen = {"model.name": model, "model.head": head, "model.dtype": dtype, "seed": seed}
    chosen |= {"evaluation.answers": answers, "evaluation.abilities": _listed("--abilities", abilities)}
    chosen |= {"model.adapter.name": adapter, "model.adapter.rank": rank, "strategies": _listed("--strategy", strategy)}
    made = Home.create(home, settings=settings_from(_with(content, chosen, settings)))
    console.print(
        f"Home {home}: {made.settings.model.name} in {made.settings.model.dtype}, version 0.",
        highlight=False,
        markup=False,
    )
    console.print(f"Teach it: everlearn learn {home} --task NAME --train FILE", highlight=False, markup=False)


def learn(
    home: HomeFolder,
    task: Annotated[str, typer.Option(help="Name of the task; a known one is taught more of.")],
    train: Annotated[Path, typer.Option(help="JSONL, CSV or Parquet.")],
    evaluate: Annotated[Path | None, typer.Option("--eval", help="What the task is measured on; else a fifth.")] = None,
    validation: Annotated[Path | None, typer.Option(help=VALIDATION)] = None,
    description: Annotated[str | None, typer.Option(help="What the task is, in words; strategy experts looks.")] = None,
    strategy: Names = None,
    gate: Annotated[float, typer.Option(help="Largest loss on an earlier task.")] = 0.02,
    gate_rule: Annotated[str, typer.Option(help="point, confident or safe.")] = "point",
    gate_abilities: Annotated[
        float | None,
        typer.Option(
            help="Largest loss of what the base knew (default: 0.05 nats per token); a warning, safe: refused."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote even what would be refused; logged.")] = False,
    epochs: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    column: Pairs = None,
    metric: Annotated[list[str] | None, typer.Option(help="The first one counts at the gate.")] = None,
    settings: Sets = None,
    discard_pending: Annotated[bool, typer.Option("--discard-pending", help="Drop one that was not finished.")] = False,
) -> None:
    """Teach the home's model a task. Exit code 2: the new version is refused, by the gate or as nothing was learned."""
    from everlearn.config import CheckpointConfig, from_mapping
    from everlearn.home import Gate, Home
    from everlearn.kinds.home import ModelHome

    chosen = {"learner.epochs": epochs, "learner.batch_size": batch_size, "learner.learning_rate": learning_rate}
    extra = _with(
        {},
        {**chosen, "task.metrics": metric, "task.description": description, "task.columns": _columns(column)},
        settings,
    )
    _only(extra, ("learner", "checkpoint", "task"))
    checkpoint = from_mapping(CheckpointConfig, extra["checkpoint"], "checkpoint") if "checkpoint" in extra else None
    with bars() as listener:
        opened = Home.open(home, listener)
        if gate_abilities is None:
            gate_abilities = Gate.abilities
        elif not opened.settings.evaluation.abilities:
            way_out = "Leave it out; everlearn init --abilities self makes a home that watches"
            raise ConfigError(describe("--gate-abilities", "this home watches no ability", gate_abilities, way_out))
        report = opened.learn(
            task, train, evaluate,
            validation=validation, options=extra.get("task"), strategies=_listed("--strategy", strategy),
            learner=extra.get("learner"), seed=seed, gate=Gate(gate, gate_rule, gate_abilities), force=force,
            checkpoint=checkpoint, discard_pending=discard_pending,
        )  # fmt: skip
    raise typer.Exit(ModelHome.finish(home, report, listener, console))


def check(home: HomeFolder) -> None:
    """Verify every file of the home, and score the current version on all tasks."""
    from everlearn.home import Home
    from everlearn.home.views import change_notes, drift_table

    with bars() as listener:
        report = Home.open(home, listener).check()
    if report.problems:
        for problem in report.problems[:-1]:
            console.print(problem, markup=False, highlight=False)
        raise StateError(report.problems[-1])
    if report.drifts:
        console.print(drift_table(report))
    for note in change_notes([drift.change for drift in report.drifts]):
        console.print(note, markup=False, highlight=False)
    if report.pending is not None:
        why = "is not finished" if report.failure is None else f"failed: {report.failure.rstrip('.')}"
        drop = f"everlearn learn {home} --discard-pending --task NAME --train FILE"
        more = f"Go on with it: everlearn resume {home}; or drop it: {drop}"
        console.print(f"Learning {report.pending!r} {why}. {more}.", markup=False, highlight=False)
    console.print(f"All files are sound. Version {report.version} is current.", highlight=False)


def log(home: HomeFolder) -> None:
    """Show what happened in the home."""
    from everlearn.home import Home
    from everlearn.home.views import log_table

    opened = Home.open(home)
    console.print(log_table(opened.log(), opened.current))


def diff(
    home: HomeFolder,
    before: Annotated[int, typer.Argument(metavar="V1")],
    after: Annotated[int, typer.Argument(metavar="V2")],
    items: Annotated[int, typer.Option(help="Show so many items that differ, with both answers.", min=0)] = 0,
) -> None:
    """Compare two versions on the same items, task by task."""
    from everlearn.home import Home
    from everlearn.home.views import change_notes, diff_table, flips_table

    with bars() as listener:
        opened = Home.open(home, listener)
        found = opened.diff(before, after)
    console.print(diff_table(found))
    for note in change_notes(found.changes):
        console.print(note, markup=False, highlight=False)
    if items and not found.flips:
        console.print("No item's score differs.", highlight=False)
    elif items:
        lost_first = sorted(found.flips, key=lambda flip: not flip.lost)
        console.print(flips_table(lost_first[:items]))
        if len(lost_first) > items:
            console.print(f"{len(lost_first) - items} more items differ.", highlight=False)
    if items and not opened.settings.evaluation.answers:
        console.print("This home keeps no answers (evaluation.answers: false).", highlight=False)


def report(
    home: HomeFolder,
    out: Annotated[Path | None, typer.Option(help="The HTML file to write (default: HOME/report.html).")] = None,
) -> None:
    """Write the home's page: how each task drifted, items lost and gained with both answers, what the gate said."""
    from everlearn.home import Home
    from everlearn.home.page import write_page

    out = out or home / "report.html"
    with bars() as listener:
        write_page(Home.open(home, listener), out)
    console.print(f"Report: {out}", highlight=False, markup=False)


def rollback(
    home: HomeFolder,
    version: Annotated[int, typer.Argument(metavar="VERSION")],
    force: Annotated[bool, typer.Option("--force", help="Even if the gate refused that version.")] = False,
) -> None:
    """Make another version the current one. Nothing is deleted."""
    from everlearn.home import Home

    Home.open(home).rollback(version, force=force)
    console.print(f"Version {version} is current.", highlight=False)


def retire(
    home: HomeFolder,
    task: Annotated[str, typer.Argument(metavar="TASK")],
    items: Annotated[Path, typer.Option(help="Rows that are evaluation items of the task: JSONL, CSV or Parquet.")],
    correct: Annotated[bool, typer.Option("--correct", help="Put these rows in the place of the items.")] = False,
    column: Pairs = None,
) -> None:
    """Take evaluation items out of a task, or correct them; logged. Versions keep their scores on the items of then."""
    from everlearn.home import Home

    columns = _columns(column)
    report = Home.open(home).retire(task, items, correct=correct, options={"columns": columns} if columns else None)
    done = f"{report.n_corrected} corrected" if correct else f"{report.n_retired} taken out"
    console.print(f"Evaluation items of {task}: {done}; {report.n_items} there now.", highlight=False, markup=False)


def export(
    home: HomeFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    merged: Annotated[bool, typer.Option("--merged", help="A whole model instead of an adapter.")] = False,
    version: Annotated[int | None, typer.Option(help="Instead of the current one.")] = None,
    task: Annotated[str | None, typer.Option(help="Whose head, or weights, where each task has its own.")] = None,
) -> None:
    """Write a version for use without everlearn."""
    from everlearn.home import Home

    written = Home.open(home).export(folder, merged=merged, version=version, task=task)
    console.print(f"Exported to {written.path}; its README.md shows how to load it.", highlight=False, markup=False)
    console.print(str(written), highlight=False, markup=False)


def _recipe(path: Path | None) -> dict[str, Any]:
    from everlearn.config import read_yaml

    return {} if path is None else read_yaml(path)


def _with(content: dict[str, Any], chosen: dict[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """Return the content with the options that were given, then with the `--set a.b=value`s."""
    from everlearn.config import apply_override

    for path, value in chosen.items():
        *parents, last = path.split(".")
        place = content
        for key in parents if value is not None else ():
            place[key] = place.get(key) or {}
            place = place[key]
        if value is not None:
            place[last] = value
    for setting in settings or []:
        apply_override(content, setting)
    return content


def _only(content: dict[str, Any], sections: tuple[str, ...]) -> None:
    from everlearn.errors import nearest

    for key in content:
        if key not in sections:
            way_out = f"{nearest(key, sections)}Known: {', '.join(f'{name}.…' for name in sections)}"
            raise ConfigError(describe(f"--set {key}", "can't be set for one learning", key, way_out))


def _listed(option: str, names: list[str] | None) -> list[str] | None:
    """Return what an option names, empty where that is `none`; None where it wasn't given."""
    if names is None:
        return None
    listed = [name.strip() for entry in names for name in entry.split(",") if name.strip()]
    if "none" in listed and len(listed) > 1:
        raise ConfigError(describe(option, "names none beside others", listed, "Write none alone, or leave it out"))
    return [name for name in listed if name != "none"]


def _columns(pairs: list[str] | None) -> dict[str, str] | None:
    columns = {}
    for pair in pairs or []:
        ours, equals, theirs = pair.partition("=")
        if not equals or not ours or not theirs:
            raise ConfigError(describe("--column", "is no pair", pair, "Write --column prompt=question"))
        columns[ours] = theirs
    return columns or None

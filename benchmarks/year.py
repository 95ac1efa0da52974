"""A home for a year: twelve small tasks taught one after another with `everlearn learn` as it comes.

    python benchmarks/year.py --out FOLDER [--model smollm2] [--months 12] [--seed 0]

The tasks are those of benchmarks/year_tasks.py: facts of a firm, formats, labels, and corrections of earlier facts,
whose items are corrected in the home first. FOLDER gets the rows, the home, what each command printed, year.json and
year.png; what was done stays, and a learning that was stopped goes on. For the whole year with smollm2 these two are
written to benchmarks/results as well: each month what the gate said, every task's score in the version that is current
then, the bytes kept and the minutes of training.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from paired import write
from typer.testing import CliRunner
from workload import results_path
from year_tasks import Lesson, Row, lessons

from everlearn.cli import app
from everlearn.home import Home
from everlearn.home.gate import report_from
from everlearn.home.store import Store
from everlearn.report.style import GREY, new_figure, save
from everlearn.state import make_folder, write_file

PAUSED = 130


def teach(lesson: Lesson, number: int, out: Path) -> None:
    """Teach a month's lesson, or go on with it; its commands' output goes into out/printed.

    Raises:
        SystemExit: if a command ended with an error, or was paused.
    """
    home, rows = out / "home", out / "rows"
    stem = f"{number + 1:02d}-{lesson.task}"
    files = {name: rows / f"{stem}.{name}.jsonl" for name in ("train", "eval")}
    _write_rows(files["train"], lesson.train)
    _write_rows(files["eval"], lesson.evaluation)
    if (home / "pending").exists():
        command(["resume", str(home)], out / "printed" / f"{stem}.txt")
        return
    if lesson.corrects and _is_to_correct(home, lesson.task):
        arguments = ["retire", str(home), lesson.task, "--items", str(files["eval"]), "--correct"]
        command(arguments, out / "printed" / f"{stem}.retire.txt")
    arguments = ["learn", str(home), "--task", lesson.task, "--train", str(files["train"])]
    command([*arguments, "--eval", str(files["eval"])], out / "printed" / f"{stem}.txt")


def command(arguments: list[str], printed: Path) -> None:
    """Run a command as it would be typed; 2, for a version that isn't promoted, is an outcome like any."""
    found = CliRunner().invoke(app, arguments, prog_name="everlearn")
    make_folder(printed.parent)
    printed.write_text(f"$ everlearn {' '.join(arguments)}\n{found.output}\nexit {found.exit_code}\n", encoding="utf-8")
    print(f"{printed.stem}: exit {found.exit_code}", flush=True)
    if found.exit_code == PAUSED:
        raise SystemExit(PAUSED)
    if found.exit_code not in (0, 2):
        raise SystemExit(f"{printed}: {found.exception or found.output}")


def _is_to_correct(home: Path, task: str) -> bool:
    """Tell whether the home has items of a task, which were not corrected since the last learning."""
    store = Store(home)
    return task in store.accepted_tasks() and store.events()[-1]["event"] != "retire"


def n_learned(home: Path) -> int:
    """Return how many learnings came to an end, accepted or not."""
    return sum(event["event"] == "learn" for event in Home.open(home).log())


def summarise(home: Path, taught: list[Lesson]) -> dict[str, Any]:
    """Return what each month brought, from the home alone."""
    store = Store(home)
    events = [event for event in store.events() if event["event"] == "learn"]
    months, current = [], store.version(0)
    for lesson, event in zip(taught, events, strict=False):
        version = store.version(event["version"])
        current = version if version.status != "refused" else current
        months.append(
            {
                "month": lesson.month,
                "task": lesson.task,
                "status": version.status,
                "verdict": version.verdict,  # on the task itself: learned, known, nothing or worse
                "refused_for": list(report_from(version.gate).lost),
                "before": version.gained["before"],
                "after": version.gained["after"],
                "scores": {task: store.learned_score(current.number, task).value for task in current.learned},
                "bytes": _size(store.folder(version.number)),
                "strategy_bytes": version.cost["strategy_bytes"],
                "n_epochs": version.cost["n_epochs"],
                "minutes": version.cost["train_s"] / 60,
            }
        )
    return {"months": months, "home_bytes": _size(home), "minutes": sum(month["minutes"] for month in months)}


def draw(numbers: dict[str, Any], path: Path) -> None:
    """Draw each task's score in the current version over the months; crosses: what wasn't promoted."""
    months = numbers["months"]
    tasks = list(dict.fromkeys(month["task"] for month in months))
    values = np.array([[month["scores"].get(task, np.nan) for month in months] for task in tasks])
    figure = new_figure(2.2 + 0.72 * len(months), 1.6 + 0.5 * len(tasks))
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(values), cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set_facecolor("#f1f1f1")
    for (row, column), value in np.ndenumerate(values):
        here = months[column]["task"] == tasks[row]
        if not np.isnan(value):
            red, green, blue, _ = colormaps["viridis"](value)
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
            weight = "bold" if here else "normal"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9, fontweight=weight)
        if here and months[column]["status"] == "refused":
            axes.text(column + 0.33, row - 0.24, "×", ha="center", va="center", color="#D55E00", fontsize=18)
    axes.set_xticks(range(len(months)), [month["month"][:3] for month in months])
    axes.set_yticks(range(len(tasks)), tasks)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("A year in one home: each task's score in the current version", fontsize=11, loc="left")
    axes.set_xlabel("bold: taught in this month; ×: the new version was not promoted", fontsize=9, color=GREY)
    bar = figure.colorbar(image, ax=axes, aspect=25, pad=0.02)
    bar.outline.set_visible(False)
    save(figure, path)


def _write_rows(path: Path, rows: list[Row]) -> None:
    make_folder(path.parent)
    write_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Teach what isn't taught yet; write numbers and picture after each month."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--months", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out, taught = arguments.out, lessons(arguments.seed)
    home = out / "home"
    make_folder(out)
    if not Home.is_home(home):
        command(["init", str(home), "--model", arguments.model], out / "printed" / "00-init.txt")
    config = {"model": arguments.model, "seed": arguments.seed}
    while (number := n_learned(home)) < arguments.months:
        teach(taught[number], number, out)
        numbers = summarise(home, taught)
        write(out / "year.json", config, numbers)
        draw(numbers, out / "year.png")
    if arguments.months == len(taught) and arguments.model == "smollm2":
        for name in ("year.json", "year.png"):
            shutil.copy(out / name, results_path("year").with_name(name))


if __name__ == "__main__":
    main()

"""What learning two tasks costs a model of what it could do before, by method: plain, replay, sdft, self_replay.

    OMP_NUM_THREADS=1 python benchmarks/abilities.py --out FOLDER [--seeds 0,1,2] [--only plain,replay] [--model NAME]

The tasks are two formats, dates and times, 96 rows each; what the model could do before is watched by its own texts
(KL) and by questions of general knowledge (right: its own answer is the likeliest of four). FOLDER gets the rows and a
run for each method and seed, FOLDER/<method>/seed-<n>: what was done stays, what was stopped goes on. All methods learn
with the first seed before any does with the next. After each run FOLDER/abilities.json and abilities.png hold what is
done so far, FOLDER/report the report; with the whole of it on smollm2 they are written to benchmarks/results and docs
as well.
"""

import argparse
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from methods import join_seeds
from paired import write
from workload import results_path

from everlearn.report.abilities import abilities_of
from everlearn.report.html import write_report
from everlearn.report.style import labels, new_figure, run_style, save, tidy
from everlearn.report.text import estimate, number
from everlearn.report.views import RunView, load_views, mean_cost
from everlearn.runs import is_finished, run_or_resume
from everlearn.seeds import seed_for

METHODS: dict[str, list[Any]] = {
    "plain": [],
    "replay": [{"name": "replay", "capacity": 60}],
    "sdft": ["sdft"],
    "self_replay": ["self_replay"],
    "replay + self_replay": [{"name": "replay", "capacity": 60}, "self_replay"],
}
N_TRAIN, N_EVAL, EPOCHS = 96, 60, 3
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MINUTES = {0: "{hour} o'clock", 5: "five past {hour}", 10: "ten past {hour}", 15: "a quarter past {hour}",
           20: "twenty past {hour}", 30: "half past {hour}", 40: "twenty to {next}", 45: "a quarter to {next}",
           50: "ten to {next}", 55: "five to {next}"}  # fmt: skip
KNOWLEDGE = {  # (question, how it is answered) -> what it is asked of, and what is right
    ("What is the capital of {}?", "The capital of {} is {}."): {
        "France": "Paris", "England": "London", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin",
        "Japan": "Tokyo", "China": "Beijing", "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens",
        "Ireland": "Dublin", "Austria": "Vienna", "Canada": "Ottawa", "Portugal": "Lisbon", "Poland": "Warsaw",
        "Norway": "Oslo",
    },
    ("What is the opposite of {}?", "The opposite of {} is {}."): {
        "hot": "cold", "big": "small", "up": "down", "happy": "sad", "fast": "slow", "light": "dark", "old": "young",
        "rich": "poor", "hard": "soft", "wet": "dry", "early": "late", "open": "closed", "strong": "weak",
        "near": "far", "full": "empty", "true": "false",
    },
    ("What colour is {}?", "The colour of {} is {}."): {
        "a banana": "yellow", "grass": "green", "snow": "white", "coal": "black", "the sky on a clear day": "blue",
        "blood": "red", "a carrot": "orange", "chocolate": "brown",
    },
    ("What is a young {} called?", "A young {} is called a {}."): {
        "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "duck": "duckling",
        "bear": "cub", "frog": "tadpole",
    },
    ("Which day comes after {}?", "The day after {} is {}."): {
        "Monday": "Tuesday", "Tuesday": "Wednesday", "Wednesday": "Thursday", "Thursday": "Friday",
        "Friday": "Saturday", "Saturday": "Sunday", "Sunday": "Monday",
    },
    ("Where does a {} work?", "A {} works {}."): {
        "teacher": "in a school", "nurse": "in a hospital", "cook": "in a kitchen", "farmer": "on a farm",
        "librarian": "in a library", "actor": "in a theatre", "sailor": "on a ship", "judge": "in a court",
    },
}  # fmt: skip

Rows = list[dict[str, Any]]


def dates() -> Rows:
    """Return all dates of six years, as words and as numbers."""
    days = [(day, month, year) for year in range(2018, 2024) for month in range(12) for day in range(1, 29)]
    return [
        {"prompt": f"Write as a date: {day} {MONTHS[month]} {year}", "completion": f" {year}-{month + 1:02d}-{day:02d}"}
        for day, month, year in days
    ]


def times() -> Rows:
    """Return times of the day, as words and as numbers."""
    rows = []
    for number_, hour in enumerate(HOURS, start=1):
        following = HOURS[number_ % 12]
        for part, shift in (("in the morning", 0), ("in the evening", 12)):
            for minute, words in MINUTES.items():
                prompt = f"Write as a time: {words.format(hour=hour, next=following)} {part}"
                rows.append({"prompt": prompt, "completion": f" {(number_ % 12 + shift):02d}:{minute:02d}"})
    return rows


def knowledge() -> Rows:
    """Return the questions, each with its answer and three that are right for others of the kind: whole sentences, as a
    chat model gives them, so that learning to answer in one word doesn't count as knowledge."""
    rows = []
    for (question, sentence), answers in KNOWLEDGE.items():
        for thing, answer in answers.items():
            draw = random.Random(seed_for("abilities", question, thing))
            wrong = draw.sample(sorted(set(answers.values()) - {answer}), 3)
            choices = [f" {sentence.format(thing, choice)}" for choice in draw.sample([answer, *wrong], 4)]
            right = f" {sentence.format(thing, answer)}"
            rows.append({"prompt": question.format(thing), "completion": right, "choices": choices})
    return rows


def write_rows(folder: Path, n_train: int, n_eval: int) -> None:
    """Write the tasks' rows and the questions into files below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"knowledge": knowledge()}
    for name, rows in {"dates": dates(), "times": times()}.items():
        chosen = random.Random(seed_for("abilities", name)).sample(rows, n_train + n_eval)
        files |= {f"{name}.train": chosen[:n_train], f"{name}.eval": chosen[n_train:]}
    for name, rows in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def recipe_of(folder: Path, model: str, epochs: int, strategies: list[Any], seed: int) -> dict[str, Any]:
    """Return the recipe of one method and seed. folder: where the rows are."""
    tasks = [
        {"name": name, "train": str(folder / f"{name}.train.jsonl"), "eval": str(folder / f"{name}.eval.jsonl")}
        for name in ("dates", "times")
    ]
    return {
        "stream": {"name": "files", "tasks": tasks, "max_new_tokens": 12},
        "model": {"name": model},
        "learner": {"epochs": epochs, "batch_size": 8, "schedule": "linear", "warmup": 0.1, "precision": "bf16",
                    "early_stopping": False},
        "strategies": strategies,
        "evaluation": {"batch_size": 16, "abilities": ["self", str(folder / "knowledge.jsonl")]},
        "seed": seed,
    }  # fmt: skip


def numbers_of(view: RunView) -> dict[str, Any]:
    """Return what the finished seeds of a method showed: the tasks' scores, and the abilities before and after."""
    results = view.results
    abilities = {Path(name).stem: found for name, found in results["abilities"].items()}
    return {
        "n_seeds": len(results["seeds"]),
        **{name: results["summary"][name] for name in ("average_accuracy", "backward_transfer", "learning_accuracy")},
        "abilities": abilities,
        "train_s": mean_cost(view)["train_s"],
    }


def draw(views: Mapping[str, RunView], path: Path) -> None:
    """Draw each method's score on the tasks against what it kept of before: KL from the base, and questions right."""
    figure = new_figure(9.6, 4.4)
    panels = figure.subplots(1, 2, sharey=True)
    for position, (name, view) in enumerate(views.items()):
        score = view.results["summary"]["average_accuracy"]
        for axes, ability in zip(panels, abilities_of(view.run, view.seeds), strict=True):
            style = {**run_style(position), "linestyle": "", "elinewidth": 1, "capsize": 2.5, "markersize": 6.5}
            across = _whiskers(ability.last.value, ability.last.low, ability.last.high)
            along = _whiskers(score["mean"], score["low"], score["high"])
            axes.errorbar(
                ability.last.value, score["mean"], along, across, label=labels([name], "method", 30)[0], **style
            )
            if position == 0:
                _finish(axes, ability.title, ability.shown[0].value)
    panels[0].set_ylabel("average accuracy on the two tasks, at the end", fontsize=9)
    panels[1].set_xlabel("questions of general knowledge right", fontsize=9)
    panels[0].set_xlim(left=0)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(5, len(names)), frameon=False, fontsize=9)
    save(figure, path)


def _finish(axes: Axes, title: str, base: float) -> None:
    tidy(axes, "both")
    axes.set_ylim(0, 1.03)
    axes.set_xlabel(title, fontsize=9)
    axes.axvline(base, color="#666666", linewidth=1, linestyle=(0, (5, 3)))
    axes.text(base, 1.01, " the base", va="top", fontsize=8, color="#666666")


def _whiskers(value: float, low: float | None, high: float | None) -> list[list[float]]:
    below, above = (0.0 if end is None or end != end else abs(value - end) for end in (low, high))
    return [[below], [above]]


def report(out: Path, config: dict[str, Any], *, whole: bool) -> None:
    """Write the numbers and the picture of all the methods that are done."""
    done = {name: out / name for name in METHODS if is_finished(out / name)}
    views = dict(zip(done, load_views(done), strict=True))
    numbers = {name: numbers_of(view) for name, view in views.items()}
    pictures = [(out / "abilities.json", out / "abilities.png")]
    if whole:
        pictures.append((results_path("abilities"), Path(__file__).parent.parent / "docs" / "abilities.png"))
    for path, picture in pictures:
        write(path, config, numbers)
        draw(views, picture)


def main() -> None:
    """Run what is asked for, and write what is done after each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    parser.add_argument("--only", help="methods, with commas between")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--rows", type=int, default=N_TRAIN, help="training rows of a task")
    parser.add_argument("--eval-rows", type=int, default=N_EVAL)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    names = arguments.only.split(",") if arguments.only else list(METHODS)
    if set(names) - set(METHODS):
        parser.error(f"--only: methods are {', '.join(METHODS)}")
    out: Path = arguments.out.resolve()
    write_rows(out / "rows", arguments.rows, arguments.eval_rows)
    sizes = {"epochs": arguments.epochs, "rows": arguments.rows, "eval_rows": arguments.eval_rows}
    config = {"model": arguments.model, "seeds": seeds, **sizes, "methods": METHODS}
    for seed, name in [(seed, name) for seed in seeds for name in names]:
        recipe = recipe_of(out / "rows", arguments.model, arguments.epochs, METHODS[name], seed)
        run_or_resume(recipe, out / name / f"seed-{seed}")
        join_seeds(out / name)
        view = load_views({name: out / name})[0]
        kept = "; ".join(
            f"{Path(ability.name).stem} {number(ability.shown[0].value)} → {number(ability.last.value)}"
            for ability in abilities_of(view.run, view.seeds)
        )
        score = " ".join(estimate(view.results["summary"]["average_accuracy"]))
        print(f"{name:20s} {score}; {kept}; {len(view.seeds)} seeds", flush=True)
        is_whole = config["model"] == "smollm2" and sizes == {"epochs": EPOCHS, "rows": N_TRAIN, "eval_rows": N_EVAL}
        finished = all(is_finished(out / one / f"seed-{each}") for one in METHODS for each in (0, 1, 2))
        report(out, config, whole=is_whole and finished)
    write_report({name: out / name for name in METHODS if is_finished(out / name)}, out / "report")


if __name__ == "__main__":
    sys.exit(main())

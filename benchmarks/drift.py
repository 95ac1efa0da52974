"""How soon river's detectors notice a drift in the error of a model that learns online, and how often they are wrong.

    python benchmarks/drift.py [--streams N] [--tune] [--out FILE]

The model is an MLP 64-64-10 that sees scikit-learn's digits one by one (drawn with replacement): it answers, its error
goes to the detectors, and it takes a step of SGD on that row. It isn't told of the drifts, and nothing follows a
detection. `--tune` tries other settings of the detectors, on other streams, and prints which it would choose.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from paired import write
from torch.nn import functional as F
from workload import results_path, use_one_thread

from everlearn.evaluation.stats import mean_interval, wilson_interval, within
from everlearn.learners.detectors import Adwin, DriftDetector, Kswin, Method, PageHinkley, error_of_loss
from everlearn.models.plain import mlp
from everlearn.report.style import COLOURS, GREY, new_figure, save, tidy
from everlearn.seeds import seed_for
from everlearn.streams.digits import DigitsStream
from everlearn.streams.drift import DriftPattern
from everlearn.types import TensorRows

N_ROWS, PERIOD, WINDOW = 4000, 1000, 500
RATE, HIDDEN = 0.05, 64
DEADLINE = 500  # rows after a drift (after its window) in which an alarm counts for it


@dataclass(frozen=True)
class Concept:
    """What a row is: a digit of `low` to `high`, named by `answers` (digit -> answer), its pixels inverted or not."""

    low: int = 0
    high: int = 9
    answers: tuple[int, ...] = tuple(range(10))
    inverted: bool = False


FLIPPED = tuple(9 - digit for digit in range(10))
DRIFTS = (Concept(0, 4), Concept(5, 9), Concept(5, 9, FLIPPED), Concept(5, 9, FLIPPED, inverted=True))
PAIRS = tuple(
    Concept(answers=answers)
    for answers in (
        (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
        (1, 0, 2, 3, 4, 5, 6, 7, 8, 9),
        (1, 0, 3, 2, 4, 5, 6, 7, 8, 9),
        (1, 0, 3, 2, 5, 4, 6, 7, 8, 9),
    )
)
# title -> (pattern, window, concepts)
SUITES: dict[str, tuple[str, int, tuple[Concept, ...]]] = {
    "sudden": ("sudden", 0, DRIFTS),
    "gradual": ("gradual", WINDOW, DRIFTS),
    "recurring": ("recurring", 0, (Concept(), Concept(answers=FLIPPED))),
    "small": ("sudden", 0, PAIRS),
}
TITLES = {
    "sudden": "sudden: other digits, other\nanswers, inverted pixels",
    "gradual": "gradual: the same,\nover 500 rows",
    "recurring": "recurring: answers flip\nand flip back",
    "small": "sudden and small: two of ten\ndigits swap their answers",
}
METHODS: dict[str, Method] = {"adwin": Adwin(), "page_hinkley": PageHinkley(), "kswin": Kswin()}
NAMES = {"adwin": "ADWIN", "page_hinkley": "Page-Hinkley", "kswin": "KSWIN"}
SIGNALS = {"error": "error 0 or 1", "loss": "1 − exp(−loss)"}
GRID: tuple[Method, ...] = (
    *(Adwin(delta=delta, clock=clock) for delta in (0.5, 0.2, 0.05, 0.01, 0.002) for clock in (1, 8, 32)),
    *(PageHinkley(t, tolerance) for t in (2.0, 3.0, 4.0, 5.0, 10.0, 50.0) for tolerance in (0.005, 0.05, 0.1, 0.15)),
    *(Kswin(alpha, *sizes) for alpha in (0.1, 0.05, 0.005) for sizes in ((100, 30), (200, 60), (300, 100))),
)
MOST_FALSE = 0.25  # false alarms in 1,000 rows that a chosen setting may have


@dataclass(frozen=True)
class Signals:
    """What a model felt at each row of a stream, before it learned from it. error, loss: [n_rows] in 0..1."""

    error: list[float]
    loss: list[float]


@dataclass(frozen=True)
class Outcome:
    """What a detector did on one stream: its alarms, the delay of each drift that it noticed, and what was false.

    n_before: drifts with an alarm in the `DEADLINE` rows before them: what would count as noticed by chance.
    """

    alarms: list[int]
    delays: list[int]
    n_drifts: int
    n_false: int
    n_before: int


def pattern_of(suite: str, seed: int = 0) -> DriftPattern:
    """Return which concept holds when."""
    kind, window, concepts = SUITES[suite]
    return DriftPattern(kind, len(concepts), PERIOD, window, seed)


def stream(suite: str, images: TensorRows, seed: int) -> TensorRows:
    """Return a stream's rows: pixels [n_rows, 64] and answers [n_rows]."""
    pattern, concepts, digits = pattern_of(suite, seed), SUITES[suite][2], images.y.numpy()
    pools = [np.flatnonzero((digits >= concept.low) & (digits <= concept.high)) for concept in concepts]
    pixels, answers = [], []
    for position in range(N_ROWS):
        number = pattern.concept_at(position)
        index = pools[number][seed_for("drift benchmark", seed, position) % len(pools[number])]
        pixels.append(1 - images.x[index] if concepts[number].inverted else images.x[index])
        answers.append(concepts[number].answers[digits[index]])
    return TensorRows(torch.stack(pixels), torch.tensor(answers))


def learn(suite: str, images: TensorRows, seeds: Sequence[int]) -> list[Signals]:
    """Learn streams row by row, each with its own network, and return each one's errors and losses.

    The networks are computed side by side; the loss is a sum over them, so none has a part in another's gradient.
    """
    networks = []
    for seed in seeds:
        with torch.random.fork_rng():
            torch.manual_seed(seed_for("drift benchmark weights", seed))
            networks.append([parameter.detach() for parameter in mlp(64, 10, hidden=(HIDDEN,)).parameters()])
    stacked = [torch.stack(same).requires_grad_() for same in zip(*networks, strict=True)]
    into, into_bias, out, out_bias = stacked
    optimizer = torch.optim.SGD(stacked, lr=RATE)
    streams = [stream(suite, images, seed) for seed in seeds]
    felt = []
    for position in range(N_ROWS):
        x = torch.stack([rows.x[position] for rows in streams])[:, None]
        y = torch.stack([rows.y[position] for rows in streams])
        hidden = torch.relu(torch.baddbmm(into_bias[:, None], x, into.mT))
        logits = torch.baddbmm(out_bias[:, None], hidden, out.mT)[:, 0]
        losses = F.cross_entropy(logits, y, reduction="none")
        felt.append((logits.argmax(1).ne(y).tolist(), losses.tolist()))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    errors, losses = (list(zip(*rows, strict=True)) for rows in zip(*felt, strict=True))
    return [
        Signals([float(error) for error in of_one], [error_of_loss(loss) for loss in its])
        for of_one, its in zip(errors, losses, strict=True)
    ]


def watch(method: Method, suite: str, values: Sequence[float], seed: int) -> Outcome:
    """Return what a detector does on a stream.

    The first alarm within `DEADLINE` rows after a drift (after its window, where it is gradual) is its detection. More
    alarms inside the window are neither right nor false; all others are false.
    """
    detector = DriftDetector(method, seed=seed)
    alarms = [place for place, value in enumerate(values) if detector.update(value)]
    window, points = SUITES[suite][1], pattern_of(suite).drift_points(N_ROWS)
    delays, allowed = [], set()
    for point in points:
        found = [alarm for alarm in alarms if point <= alarm < point + window + DEADLINE]
        delays += [found[0] - point for _ in found[:1]]
        allowed.update(found[:1], (alarm for alarm in found if alarm < point + window))
    before = [any(point - DEADLINE <= alarm < point for alarm in alarms) for point in points]
    return Outcome(alarms, delays, len(points), len(set(alarms) - allowed), sum(before))


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return share detected (Wilson), delay in rows and false alarms in 1,000 rows (Student, over streams)."""
    n_drifts, n_found = sum(o.n_drifts for o in outcomes), sum(len(o.delays) for o in outcomes)
    delays = [float(np.mean(o.delays)) for o in outcomes if o.delays]
    false = [1000 * o.n_false / N_ROWS for o in outcomes]
    return {
        "n_streams": len(outcomes),
        "n_drifts": n_drifts,
        "n_detected": n_found,
        "n_before": sum(o.n_before for o in outcomes),
        "detected": asdict(wilson_interval(n_found, n_drifts)),
        "delay": _over_streams(delays) if len(delays) > 1 else None,
        "false_alarms_per_1000": _over_streams(false),
        "alarms": [o.alarms for o in outcomes],
    }


def _over_streams(values: list[float]) -> dict[str, float | None]:
    """Return the mean of counts or rows, not below 0, with its interval, null where all streams are alike."""
    found = asdict(within(mean_interval(values), (0.0, math.inf)))
    return {name: None if math.isnan(number) else number for name, number in found.items()}


def tune(images: TensorRows, n_streams: int) -> None:
    """Print how each setting of `GRID` does on streams of their own, and the one that would be chosen for each method.

    It is the one with the shortest mean delay, a missed drift counted as `PERIOD` rows, among those with at most
    `MOST_FALSE` false alarms in 1,000 rows (without such: with the fewest).
    """
    seeds = [seed_for("tune", number) for number in range(n_streams)]
    learned = {suite: learn(suite, images, seeds) for suite in SUITES}
    felt = {(s, seed): felt.error for s in SUITES for seed, felt in zip(seeds, learned[s], strict=True)}
    found: dict[type, list[tuple[bool, float, Method]]] = {}
    for method in GRID:
        outcomes = [watch(method, suite, values, seed) for (suite, seed), values in felt.items()]
        n_missed = sum(o.n_drifts - len(o.delays) for o in outcomes)
        delay = (sum(sum(o.delays) for o in outcomes) + PERIOD * n_missed) / sum(o.n_drifts for o in outcomes)
        false = 1000 * sum(o.n_false for o in outcomes) / (N_ROWS * len(outcomes))
        print(f"{method}: delay {delay:.1f}, missed {n_missed}, false alarms in 1,000 rows {false:.3f}", flush=True)
        few = false <= MOST_FALSE
        found.setdefault(type(method), []).append((not few, delay if few else false, method))
    for settings in found.values():
        print("chosen:", min(settings, key=lambda setting: setting[:2])[2])


def measure(images: TensorRows, n_streams: int) -> dict[str, Any]:
    """Return the numbers of all detectors on both signals, and the streams' mean error over 50 rows."""
    numbers: dict[str, Any] = {}
    for suite in SUITES:
        seeds = [seed_for("report", number) for number in range(n_streams)]
        felt = learn(suite, images, seeds)
        error = np.array([signals.error for signals in felt]).reshape(n_streams, -1, 50).mean(axis=(0, 2))
        numbers[suite] = {"drift_points": pattern_of(suite).drift_points(N_ROWS), "error_of_50": error.tolist()}
        for signal, name in itertools.product(SIGNALS, METHODS):
            outcomes = [
                watch(METHODS[name], suite, vars(signals)[signal], seed)
                for signals, seed in zip(felt, seeds, strict=True)
            ]
            numbers[suite].setdefault(signal, {})[name] = summary(outcomes)
            print(table_row(suite, signal, name, numbers[suite][signal][name]), flush=True)
    return numbers


def table(numbers: dict[str, Any]) -> str:
    """Return the numbers as a Markdown table."""
    head = (
        "| drift | fed with | detector | detected | alarm before | delay, rows | false alarms in 1,000 rows |\n"
        + "| --- " * 7
        + "|"
    )
    rows = (
        table_row(suite, signal, name, numbers[suite][signal][name])
        for suite in numbers
        for signal, name in itertools.product(SIGNALS, METHODS)
    )
    return "\n".join([head, *rows, ""])


def table_row(suite: str, signal: str, name: str, found: dict[str, Any]) -> str:
    """Return one row of the table."""

    def shown(interval: dict[str, float | None] | None, digits: int) -> str:
        if interval is None:
            return "–"
        value, low, high = interval.values()
        if low is None:
            return f"{value:.{digits}f}"
        return f"{value:.{digits}f} [{max(0.0, low):.{digits}f}, {high:.{digits}f}]"

    share = f"{found['n_detected']} of {found['n_drifts']}"
    delay, false = shown(found["delay"], 0), shown(found["false_alarms_per_1000"], 2)
    return f"| {suite} | {SIGNALS[signal]} | {NAMES[name]} | {share} | {found['n_before']} | {delay} | {false} |"


def draw(numbers: dict[str, Any]) -> Figure:
    """Return a column for each suite: the model's error above, the alarms of each detector on each stream below."""
    figure = new_figure(13.0, 6.4)
    figure.get_layout_engine().set(w_pad=0.12)
    panels = figure.subplots(2, len(numbers), sharex=True, sharey="row", height_ratios=(1, 1.9))
    for column, (suite, found) in enumerate(numbers.items()):
        above, below = panels[:, column]
        for axes in (above, below):
            _mark_drifts(axes, found["drift_points"], SUITES[suite][1])
        n_bins = len(found["error_of_50"])
        above.plot(np.arange(n_bins) * 50 + 25, found["error_of_50"], color="black", linewidth=1.2)
        above.set_title(TITLES[suite], fontsize=10.5, loc="left")
        above.set_ylim(0, 1.02)
        _raster(below, found["error"])
        below.set_xlabel("row of the stream")
        below.set_xlim(0, N_ROWS)
        below.set_xticks(range(0, N_ROWS + 1, PERIOD))
        for axes in (above, below):
            tidy(axes, "y" if axes is above else "x")
    n_streams = len(next(iter(numbers.values()))["error"]["adwin"]["alarms"])
    panels[0, 0].set_ylabel(f"error before learning,\nmean of {n_streams} streams")
    panels[1, 0].set_ylabel("alarms, a line for each stream")
    return figure


def _mark_drifts(axes: Axes, points: Sequence[int], window: int) -> None:
    for point in points:
        axes.axvline(point, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        if window:
            axes.axvspan(point, point + window, color=GREY, alpha=0.13, linewidth=0)


def _raster(axes: Axes, found: dict[str, Any]) -> None:
    """Draw a block for each detector, a line of alarms for each stream."""
    centres = []
    for block, name in enumerate(METHODS):
        alarms = found[name]["alarms"]
        top = block * (len(alarms) + 4)
        axes.eventplot(alarms, lineoffsets=np.arange(len(alarms)) + top, colors=COLOURS[block], linelengths=1, lw=1.6)
        centres.append(top + (len(alarms) - 1) / 2)
    axes.set_yticks(centres, [NAMES[name] for name in METHODS])
    axes.tick_params(axis="y", length=0)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()


def main() -> None:
    """Measure, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--tune", action="store_true", help="try other settings, on other streams, and write nothing")
    parser.add_argument("--out", type=Path, default=results_path("drift"))
    arguments = parser.parse_args()
    use_one_thread()
    images = DigitsStream(mode="permuted", n_tasks=1).build().tasks[0].train
    if arguments.tune:
        tune(images, arguments.streams)
        return
    numbers = measure(images, arguments.streams)
    config = {"n_streams": arguments.streams, "n_rows": N_ROWS, "period": PERIOD, "window": WINDOW}
    config |= {"learner": f"MLP 64-{HIDDEN}-10, SGD {RATE}, one row a step, digits", "deadline": DEADLINE}
    config |= {"methods": {name: repr(method) for name, method in METHODS.items()}}
    write(arguments.out, config, numbers)
    arguments.out.with_suffix(".md").write_text(table(numbers), encoding="utf-8")
    save(draw(json.loads(arguments.out.read_text(encoding="utf-8"))["numbers"]), arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    sys.exit(main())
